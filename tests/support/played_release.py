"""A whole release from its manifests: every pod by podman, each held to its NetworkPolicy."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.chart import Manifest, find, find_all, pod_specs, render
from tests.support.container_tools import ContainerTools
from tests.support.played_pod import PlayedPod
from tests.support.policy_filter import Filtered, PolicyFilter

_COMPONENT = "app.kubernetes.io/component"
_FIRST_USER = 20_001


class PlayedRelease:
    """Use it as a context manager, in a network of one's own; `start` each pod by its role's name.

    All pods are on one loopback interface, so each role has an address of its own, and a user of its own by whom the
    packet filter knows it: both are values of the chart. A pod finds those secrets that its manifest names.
    """

    def __init__(
        self,
        *,
        tools: ContainerTools,
        image: str,
        values: Path,
        overrides: Mapping[str, Any],
        secrets: Mapping[tuple[str, str], str],
        servers: Sequence[int],
        folder: Path,
    ) -> None:
        """`secrets` by name and key; `servers` are the ports on 127.0.0.1 of all that is outside of the release."""
        self._tools = tools
        self._servers = servers
        self._image = image
        self._secrets = secrets
        self._folder = folder
        self._pods: dict[str, PlayedPod] = {}
        self._stack = ExitStack()
        plain = render(values, overrides=overrides)
        #: Those that run for good.
        self.roles = [_role(workload) for workload in find_all(plain, "Deployment")]
        #: By role, the Job and the test's among them; each rendered with an address and a user of its own.
        self._manifests: dict[str, list[Manifest]] = {}
        self.addresses: dict[str, str] = {}
        for number, role in enumerate((*self.roles, "migrate", "test")):
            self.addresses[role] = f"127.0.1.{number + 1}"
            own = {"bindAddress": self.addresses[role], "runAsUser": _FIRST_USER + number}
            self._manifests[role] = render(values, overrides={**overrides, **own})

    def __enter__(self) -> Self:
        served = [self.addresses[role] for role in self.roles]
        self.filter = PolicyFilter(
            [
                Filtered(
                    role=role,
                    user=self.workload(role)[1]["securityContext"]["runAsUser"],
                    policy=find(manifests, "NetworkPolicy", f"-{role}"),
                    addresses=served,
                )
                for role, manifests in self._manifests.items()
            ],
            servers=self._servers,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def workload(self, role: str) -> tuple[Manifest, Manifest]:
        """What makes the role's pods, and their spec."""
        (workload,) = [
            manifest
            for manifest in self._manifests[role]
            if manifest["kind"] in ("Deployment", "Job", "Pod") and _role(manifest) == role
        ]
        (spec,) = pod_specs([workload]).values()
        return workload, spec

    def start(self, role: str) -> PlayedPod:
        """Start the role's pod; returns at once."""
        folder = self._folder / role
        folder.mkdir()
        workload, spec = self.workload(role)
        services = {
            service["metadata"]["name"]: self.addresses[_role(service)]
            for service in find_all(self._manifests[role], "Service")
        }
        pod = PlayedPod(
            tools=self._tools,
            image=self._image,
            workload=workload,
            config_map=find(self._manifests[role], "ConfigMap", "-settings"),
            secrets=self._named_by(spec),
            folder=folder,
            hosts=services,
        )
        self._pods[role] = self._stack.enter_context(pod)
        return pod

    def pod(self, role: str) -> PlayedPod:
        """A pod that was started."""
        return self._pods[role]

    def _named_by(self, spec: Manifest) -> dict[str, str]:
        named = {}
        for volume in spec.get("volumes", []):
            for source in volume.get("projected", {}).get("sources", []):
                secret = source["secret"]
                for item in secret["items"]:
                    named[item["path"]] = self._secrets[secret["name"], item["key"]]
        return named


def _role(manifest: Manifest) -> str:
    role: str = manifest["metadata"]["labels"][_COMPONENT]
    return role
