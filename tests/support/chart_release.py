"""A release of the chart from its manifests: every pod run by podman, each held to its NetworkPolicy."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.chart import Manifest, find, find_all, pod_specs, render
from tests.support.containers import ContainerTools
from tests.support.waiting import eventually

_GROUP = 10001


class PlayedPod:
    """One pod of a Deployment, StatefulSet or Job, or a Pod. Use it as a context manager.

    All that the manifest says about it holds, but for what podman cannot do: probes and hooks are the test's to carry
    out (podman needs a shell and curl in the image for them), secrets and claimed volumes are folders below `folder`.
    It has this machine's network, so that it reaches private servers; tell it an address of its own to bind.
    """

    def __init__(
        self,
        *,
        tools: ContainerTools,
        image: str,
        workload: Manifest,
        config_map: Manifest,
        secrets: Mapping[str, str],
        folder: Path,
        hosts: Mapping[str, str] | None = None,
    ) -> None:
        """`secrets` by the paths at which the pod will find them below its volume; `hosts`: addresses by name."""
        self._tools = tools
        template = workload if workload["kind"] == "Pod" else workload["spec"]["template"]
        self.name = f"{workload['metadata']['name']}-{os.getpid()}-{folder.name}"[:60].strip("-_").replace("_", "-")
        #: As it was rendered.
        self.container: Manifest = template["spec"]["containers"][0]
        #: How long it is given to end; Kubernetes' own 30 s where the manifest does not say.
        self.grace_seconds: int = template["spec"].get("terminationGracePeriodSeconds", 30)
        pod = _playable(template["spec"], image=image, volumes=self._make_volumes(workload, secrets, folder))
        if hosts:
            _name_hosts(pod, hosts, folder / "hosts")
        # podman makes a volume of it that all pods would share, each with a document of its own.
        config_map = {**config_map, "metadata": {"name": self.name}}
        for volume in pod["volumes"]:
            if "configMap" in volume:
                volume["configMap"]["name"] = self.name
        manifests = [config_map, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": self.name}, "spec": pod}]
        self._file = folder / "pod.yaml"
        self._file.write_text("\n---\n".join(map(json.dumps, manifests)))

    def __enter__(self) -> Self:
        assert shutil.which("catatonit"), "catatonit, which holds podman's pods, is not installed: see `make test-ship`"
        self._tools.podman("play", "kube", "--quiet", self._file)
        return self

    def __exit__(self, *_: object) -> None:
        self._tools.podman("pod", "rm", "--force", "--ignore", "--time", "0", self.name)

    @property
    def output(self) -> str:
        """What its container has written so far."""
        return self._tools.logs(self.container_name)

    def execute(self, *command: str) -> str:
        """Run a command in its container, as a hook would; an AssertionError where it fails."""
        return self._tools.podman("exec", self.container_name, *command)

    def stop(self) -> int:
        """SIGTERM, SIGKILL after the grace period, and the exit code."""
        self._tools.podman("stop", "--time", str(self.grace_seconds), self.container_name)
        return int(self.inspect()["State"]["ExitCode"])

    def wait(self) -> int:
        """The exit code, once it has ended by itself."""
        eventually(lambda: self.inspect()["State"]["Status"] == "exited", why=lambda: self.output)
        return int(self.inspect()["State"]["ExitCode"])

    def inspect(self) -> Manifest:
        """What podman made of its container."""
        (about,) = json.loads(self._tools.podman("container", "inspect", self.container_name))
        found: Manifest = about
        return found

    @property
    def container_name(self) -> str:
        """What podman calls its container."""
        return f"{self.name}-{self.container['name']}"

    @staticmethod
    def _make_volumes(workload: Manifest, secrets: Mapping[str, str], folder: Path) -> dict[str, Path]:
        made = {}
        for claim in workload["spec"].get("volumeClaimTemplates", []):
            name = claim["metadata"]["name"]
            made[name] = folder / name
            made[name].mkdir()
            # What fsGroup does to a volume.
            os.chown(made[name], 0, _GROUP)
            made[name].chmod(0o2775)
        made["secrets"] = folder / "secrets"
        made["secrets"].mkdir()
        for path, secret in secrets.items():
            file = made["secrets"] / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(secret)
        return made


def _playable(spec: Manifest, *, image: str, volumes: Mapping[str, Path]) -> Manifest:
    """The same pod in words that podman knows."""
    spec = {**deepcopy(spec), "hostNetwork": True}
    for container in spec["containers"]:
        container.update(image=image, imagePullPolicy="Never")
        for unknown in ("startupProbe", "livenessProbe", "readinessProbe", "lifecycle", "resources", "ports"):
            container.pop(unknown, None)
    spec["volumes"] = [volume for volume in spec.get("volumes", []) if volume["name"] not in volumes]
    spec["volumes"] += [
        {"name": name, "hostPath": {"path": str(path), "type": "Directory"}} for name, path in volumes.items()
    ]
    return spec


def _name_hosts(spec: Manifest, hosts: Mapping[str, str], file: Path) -> None:
    """As a cluster's DNS would; podman passes over `hostAliases` on the machine's network."""
    file.write_text("".join(f"{address} {name}\n" for name, address in hosts.items()))
    spec["volumes"].append({"name": "hosts", "hostPath": {"path": str(file), "type": "File"}})
    for container in spec["containers"]:
        mount = {"name": "hosts", "mountPath": "/etc/hosts", "readOnly": True}
        container["volumeMounts"] = [*container.get("volumeMounts", []), mount]


_TABLE = "policies"
_REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filtered:
    """A role, told apart by the user that its processes run as."""

    role: str
    user: int
    policy: Manifest
    #: Where the pods are that the policy's rules may select, all of them alike: the release's.
    addresses: Sequence[str] = field(default_factory=tuple)


class PolicyFilter:
    """Refuses at once what Kubernetes' network would drop, and counts connections. For a network of one's own.

    Of the rules: the ports of TCP and UDP, and peers that are pods of the release. An `ipBlock` or another namespace is
    anywhere.
    """

    def __init__(self, roles: Sequence[Filtered], *, servers: Sequence[int]) -> None:
        """`servers` are the ports on 127.0.0.1 that stand for what is outside; the others there are a pod's own.

        pika, for one, connects to itself, and no policy is about that.
        """
        outside = ", ".join(map(str, servers))
        lines = [f"table inet {_TABLE} {{", "chain out {", "type filter hook output priority 0; policy accept;"]
        # A policy is about who may connect; answers go where the connection came from.
        lines.append("ct state established,related accept")
        for role in roles:
            lines += [
                f"meta skuid {role.user} {_peers(rule, role.addresses)}{port['protocol'].lower()} dport {port['port']}"
                f' counter accept comment "{role.role} {port["port"]}"'
                for rule in role.policy["spec"]["egress"]
                for port in rule["ports"]
            ]
            lines.append(f"meta skuid {role.user} ip daddr 127.0.0.1 tcp dport != {{ {outside} }} accept")
            lines.append(f'meta skuid {role.user} counter reject comment "{role.role} {_REFUSED}"')
        self._nft("-f", "-", given="\n".join([*lines, "}", "}", ""]))

    def connections(self) -> Mapping[tuple[str, int], int]:
        """How often each role connected to each port that it may connect to."""
        return {(role, int(port)): count for (role, port), count in self._counts().items() if port != _REFUSED}

    def refused(self) -> Mapping[str, int]:
        """How often each role tried what it may not."""
        return {role: count for (role, port), count in self._counts().items() if port == _REFUSED}

    def _counts(self) -> Mapping[tuple[str, str], int]:
        counts: dict[tuple[str, str], int] = {}
        for item in json.loads(self._nft("--json", "list", "table", "inet", _TABLE))["nftables"]:
            rule = item.get("rule", {})
            if "comment" in rule:
                role, port = rule["comment"].split()
                (counter,) = [part["counter"] for part in rule["expr"] if "counter" in part]
                # UDP and TCP of one port are one.
                counts[role, port] = counts.get((role, port), 0) + counter["packets"]
        return counts

    @staticmethod
    def _nft(*arguments: str, given: str = "") -> str:
        done = subprocess.run(["nft", *arguments], input=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"nft {' '.join(arguments)} failed:\n{done.stderr}{given}"
        return done.stdout


def _peers(rule: Manifest, addresses: Sequence[str]) -> str:
    peers = rule.get("to", [])
    if any("namespaceSelector" in peer or "ipBlock" in peer for peer in peers) or not peers:
        return ""
    return f"ip daddr {{ {', '.join(addresses)} }} "


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
