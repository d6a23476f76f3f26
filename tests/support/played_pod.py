"""A pod of a rendered manifest, run by `podman play kube`."""

import json
import os
import shutil
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Self

from tests.support.chart import Manifest
from tests.support.container_tools import ContainerTools
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
