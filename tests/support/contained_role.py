"""A role of the service in a container that may do nothing but what it needs to."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from tests.support.container_tools import ContainerTools
from tests.support.processes import Process

#: The hardest that Kubernetes' "restricted" profile and a read-only root can ask for. `--read-only-tmpfs=false`: podman
#: would else put a writable /tmp, /run and /var/tmp in, which Kubernetes does not.
LOCKED_DOWN = (
    "--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges",
    "--user=10001:10001", "--network=host",
)  # fmt: skip

_SETTINGS = "/etc/payment-callbacks/payment-callbacks.toml"


class ContainedRole:
    """One container; `start` it once. It sees the settings' file, `environment`, and nothing else of this machine's."""

    def __init__(
        self,
        *arguments: str,
        tools: ContainerTools,
        image: str,
        settings: Path,
        environment: Mapping[str, str],
        options: Sequence[str] = (),
    ) -> None:
        self.name = f"{settings.parent.name}-{'-'.join(arguments)}"
        self._tools = tools
        self._process = Process(
            name=self.name,
            command=[
                "podman", "run", "--name", self.name, *LOCKED_DOWN, *options,
                "--volume", f"{settings}:{_SETTINGS}:ro",
                *(word for name in environment for word in ("--env", name)),
                image, *arguments,
            ],
            log_file=settings.parent / f"{self.name}.log",
            environment={**tools.environment, **environment},
        )  # fmt: skip

    @property
    def output(self) -> str:
        """What it has written so far."""
        return self._process.output

    def start(self) -> None:
        """Start it; returns at once."""
        self._process.start()

    def wait_until(self, ready: Callable[[], object]) -> None:
        """Wait until `ready` is true; fails at once where the container ends before that."""
        self._process.wait_until(ready)

    def wait(self) -> int:
        """The exit code, once it has ended by itself."""
        return self._process.wait(within_seconds=60)

    def stop(self) -> int:
        """SIGTERM, as every platform does it, and the exit code; an AssertionError where 20 s do not suffice."""
        self._tools.podman("kill", "--signal", "TERM", self.name)
        return self._process.wait(within_seconds=20)

    def execute(self, *command: str) -> str:
        """Run a command in the container while it runs, and return what it wrote."""
        return self._tools.podman("exec", self.name, *command)

    def started_at(self) -> datetime:
        """When its process began."""
        (about,) = json.loads(self._tools.podman("container", "inspect", self.name))
        return datetime.fromisoformat(about["State"]["StartedAt"])

    def remove(self) -> None:
        """End it at once, and leave nothing of it. Safe to call twice."""
        self._tools.podman("rm", "--force", "--ignore", "--time", "0", self.name)
        self._process.kill()
