"""buildah and podman, the project's image, and containers of it."""

import ctypes
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.debian import REPOSITORY, cache_folder, debootstrap, download_wheels, run_command
from tests.support.processes import Process

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
        #: What may be kept, and may as well be deleted.
        self.cache = cache_folder("image-test")
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


#: What the stand-in is called.
BASE_IMAGE = "localhost/payment-callbacks-base:bookworm"
#: The minor of Debian bookworm's Python, as pip writes it.
BASE_PYTHON = "3.11"

_DEBIAN = "bookworm"
_PACKAGES = ("python3", "python3-venv", "ca-certificates")


def ensure_base_image(tools: ContainerTools) -> None:
    """Make it, unless an earlier run did: takes a minute or two and 180 MB."""
    if BASE_IMAGE in tools.podman("images", "--format", "{{.Repository}}:{{.Tag}}").split():
        return
    with tempfile.TemporaryDirectory(prefix="payment-callbacks-base-") as folder:
        root = Path(folder) / "root"
        debootstrap(_DEBIAN, root, packages=_PACKAGES)
        archive = Path(folder) / "root.tar"
        run_command("tar", "--create", "--file", archive, "--directory", root,
                    "--exclude=./var/cache/apt/archives/*.deb", "--exclude=./var/lib/apt/lists/*", ".")  # fmt: skip
        container = tools.buildah("from", "scratch").strip()
        tools.buildah("add", "--quiet", container, archive, "/")
        tools.buildah("commit", "--quiet", "--rm", container, BASE_IMAGE)


#: What it is called; other tests may run it by this name.
IMAGE = "localhost/payment-callbacks:test"
#: What the build is told, to be found again in the labels.
VERSION = "0.0.0+test"
REVISION = "0123456789abcdef0123456789abcdef01234567"

# On a folder that every image has: a mount point that is made for the build stays in the image.
_PIP_CONF = "[global]\nno-index = true\nfind-links = /mnt\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What was built."""

    name: str
    base: str
    #: Unpacked.
    size_bytes: int
    base_size_bytes: int
    #: When the build was told to be.
    created: str
    #: What runs in it by default, by whom, and what is said about it: the OCI configuration.
    config: dict[str, Any]


def build_image(tools: ContainerTools) -> Image:
    """Build it anew (half a minute). The locked wheels come from wherever this machine's pip has them from."""
    ensure_base_image(tools)
    for requirements in ("postgresql.txt", "otel.txt", "oidc.txt"):
        wheels = download_wheels(tools.cache / "wheels", requirements=requirements, python=BASE_PYTHON)
    pip_conf = tools.cache / "pip.conf"
    pip_conf.write_text(_PIP_CONF)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    arguments = {"BASE": BASE_IMAGE, "VERSION": VERSION, "REVISION": REVISION, "CREATED": created}
    tools.buildah(
        "bud", "--pull-never", "--isolation", "chroot", "--tag", IMAGE,
        *(word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")),
        "--secret", f"id=pip.conf,src={pip_conf}",
        "--volume", f"{wheels}:/mnt:ro",
        REPOSITORY,
    )  # fmt: skip
    tools.podman("image", "prune", "--force")  # the one that it replaces
    (about,) = json.loads(tools.podman("image", "inspect", IMAGE))
    (about_base,) = json.loads(tools.podman("image", "inspect", BASE_IMAGE))
    return Image(
        name=IMAGE,
        base=BASE_IMAGE,
        size_bytes=about["Size"],
        base_size_bytes=about_base["Size"],
        created=created,
        config=about["Config"],
    )


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


_CLONE_NEWNET = 0x40000000


@contextmanager
def own_network() -> Iterator[None]:
    """While the `with` lasts, this thread and what it starts see a loopback interface and nothing else. Needs root."""
    libc = ctypes.CDLL(None, use_errno=True)  # os.unshare and os.setns came with Python 3.12
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _check(libc.unshare(_CLONE_NEWNET))
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield
        finally:
            _check(libc.setns(before, _CLONE_NEWNET))
    finally:
        os.close(before)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
