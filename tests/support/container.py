"""One container as a process of the tests: its output kept, its end seen, nothing of it left."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from tests.support.container_tools import ContainerTools
from tests.support.processes import Process

#: The hardest that Kubernetes' "restricted" profile and a read-only root can ask for. `--read-only-tmpfs=false`: podman
#: would else put a writable /tmp, /run and /var/tmp in, which Kubernetes does not.
LOCKED_DOWN = (
    "--read-only",
    "--read-only-tmpfs=false",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--user=10001:10001",
    "--network=host",
)


class Container:
    """Start it once, and remove it. `options` are those of `podman run`."""

    def __init__(
        self,
        *arguments: str,
        name: str,
        tools: ContainerTools,
        image: str,
        options: Sequence[str],
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Its log goes into `folder`. It is given `environment`, and nothing of ours."""
        self.name = name
        self._tools = tools
        given = environment or {}
        self._process = Process(
            name=name,
            command=["podman", "run", "--name", name, *options, *(f"--env={key}" for key in given), image, *arguments],
            log_file=folder / f"{name}.log",
            environment={**tools.environment, **given},
        )

    @property
    def output(self) -> str:
        """What it has written so far."""
        return self._process.output

    def describe(self) -> str:
        """Its state and the end of its output, for the report of a failed test."""
        return self._process.describe()

    def start(self) -> None:
        """Start it; returns at once."""
        self._process.start()

    def wait_until(self, ready: Callable[[], object]) -> None:
        """Wait until `ready` is true; fails at once where the container ends before that."""
        self._process.wait_until(ready)

    def wait(self) -> int:
        """The exit code, once it has ended by itself."""
        return self._process.wait()

    def stop(self) -> int:
        """SIGTERM, as every platform does it, and the exit code; an AssertionError where 20 s do not suffice."""
        self._tools.podman("kill", "--signal", "TERM", self.name)
        return self._process.wait()

    def execute(self, *command: str, given: str = "") -> str:
        """Run a command in it, which reads `given`, and return what it wrote; an AssertionError where it failed."""
        return self._tools.podman("exec", "--interactive", self.name, *command, given=given)

    def started_at(self) -> datetime:
        """When its process began."""
        (about,) = json.loads(self._tools.podman("container", "inspect", self.name))
        return datetime.fromisoformat(about["State"]["StartedAt"])

    def remove(self) -> None:
        """End it at once, and leave nothing of it but named volumes. Safe to call twice."""
        self._tools.podman("rm", "--force", "--ignore", "--time", "0", self.name)
        self._process.kill()
