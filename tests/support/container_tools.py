"""buildah and podman, without a daemon and with a storage of their own: nothing of the machine's is seen or touched."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

_PROGRAMS = ("buildah", "podman", "runc", "debootstrap")

# Low limits, since whoever runs this may not be allowed to raise his own; runc and cgroupfs, since neither crun nor
# systemd is everywhere; locks in files, since those in shared memory are the whole machine's.
_CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]

[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
tmp_dir = "{run}/podman"
"""
_STORAGE_CONF = """\
[storage]
driver = "overlay"
graphroot = "{cache}/storage"
runroot = "{run}/storage"
"""


class ContainerTools:
    """Images are kept in the user's cache from one run to the next; containers are not. Use it as a context manager.

    There is one at a time for each user: a second one waits until the first is done with the cache.
    """

    def __init__(self) -> None:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        #: What may be kept, and may as well be deleted.
        self.cache = home / "payment-callbacks" / "image-test"
        # Sockets are made in it, and their paths must be short.
        self._run = Path(tempfile.mkdtemp(prefix="payment-callbacks-"))
        files = {
            "CONTAINERS_CONF": _write(self._run / "containers.conf", _CONTAINERS_CONF.format(run=self._run)),
            "CONTAINERS_STORAGE_CONF": _write(
                self._run / "storage.conf", _STORAGE_CONF.format(cache=self.cache, run=self._run)
            ),
        }
        #: For processes that call podman themselves.
        self.environment: Mapping[str, str] = {**os.environ, **files}

    def __enter__(self) -> Self:
        missing = [program for program in _PROGRAMS if shutil.which(program) is None]
        assert not missing, f"not installed: {', '.join(missing)}. `make image-test` as root does it, or says how"
        self.cache.mkdir(parents=True, exist_ok=True)
        self._lock = (self.cache / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.podman("rm", "--all", "--force", "--time", "0")
        self.podman("volume", "prune", "--force")
        # Both mount the storage on itself, and leave it so.
        subprocess.run(["umount", "--quiet", self.cache / "storage" / "overlay"], check=False, capture_output=True)
        shutil.rmtree(self._run, ignore_errors=True)
        self._lock.close()

    def buildah(self, *arguments: str | Path) -> str:
        """Run it, at low priority, and return what it wrote; an AssertionError where it failed."""
        return self._run_program("nice", "buildah", *arguments)

    def podman(self, *arguments: str | Path, given: str = "") -> str:
        """Run it, with `given` to read, and return what it wrote; an AssertionError where it failed."""
        return self._run_program("podman", *arguments, given=given)

    def logs(self, container: str) -> str:
        """What it wrote to stdout and stderr so far, in its order."""
        command = ["podman", "logs", container]
        done = subprocess.run(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def _run_program(self, *command: str | Path, given: str = "") -> str:
        done = subprocess.run(command, env=self.environment, input=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}"
        return done.stdout


def _write(file: Path, text: str) -> str:
    file.write_text(text)
    return str(file)
