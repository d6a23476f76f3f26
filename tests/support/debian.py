"""Whole systems of a Debian release, and commands of this project in them.

`python -m tests.support.debian RELEASE COMMAND...` runs a command (`make test`) in a copy of the working tree, with the
release's own Python, RabbitMQ and PostgreSQL. Needs root. What it unpacks is kept in the user's cache.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.support.releases import BASELINE, read_release

REPOSITORY = Path(__file__).parents[2]

_MIRROR_SECONDS = 30.0
# debootstrap has a script for each release that it knows, and all since 2016 are this one.
_SCRIPT = "sid"

# What CONTRIBUTING.md asks for; make installs everything else.
_PACKAGES = ("make", "python3", "python3-venv")
_APT_SETTINGS = """\
// A mirror's index of a release in the making may be older than it should be. Its signature is still checked.
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
APT::Install-Recommends "false";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };
"""

# In namespaces of its own: its mounts, and the processes that it leaves, end with it. bash stays the first process, for
# the first one has to reap the orphans of all others.
_ENTER = """\
set -euo pipefail
root=$1 run=$2 access=$3
shift 3
mount --bind "$root" "$root"
mount --options "remount,bind,$access" "$root"
mount --types proc proc "$root/proc"
for folder in dev sys; do mount --rbind "/$folder" "$root/$folder"; done
for folder in payment-callbacks root run tmp; do mount --bind "$run/$folder" "$root/$folder"; done
chroot "$root" /usr/bin/env --ignore-environment --chdir=/payment-callbacks "$@"
exit $?
"""
_ENVIRONMENT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
    "PIP_NO_INDEX=1",
    "PIP_FIND_LINKS=/wheels",
    "MAKEFLAGS=VENV=/venv",
    "BASELINE_ARCHIVE=/root/baseline.tar",
)
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")


def cache_folder(name: str) -> Path:
    """A folder in the user's cache, made where it is missing. What is in it may be deleted at any time."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "payment-callbacks" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run_command(*command: str | Path, given: bytes = b"") -> str:
    """Run it, with `given` to read, and return what it wrote; an AssertionError where it failed."""
    done = subprocess.run(command, input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    output = done.stdout.decode(errors="replace")
    assert done.returncode == 0, f"{' '.join(map(str, command))} failed:\n{output[-4000:]}"
    return output


def find_mirror() -> str:
    """The address of Debian's packages in the configuration of this machine's apt; "" where it names none."""
    # Without the release's own information, which only `apt-get update` brings.
    listing = ("indextargets", "--no-release-info", "--format", "$(REPO_URI)", "Created-By: Packages")
    addresses = [address.rstrip("/") for address in run_command("apt-get", *listing).split()]
    return next((mirror for mirror in addresses if mirror.startswith("http") and mirror.endswith("/debian")), "")


def debootstrap(release: str, root: Path, *, packages: Sequence[str]) -> None:
    """Make a smallest system of `release`, with `packages`, in the folder `root`: takes a minute or two.

    It comes from apt's mirror, or else from debootstrap's default one. An AssertionError says what is wrong where the
    mirror cannot be reached or has no such release.
    """
    mirror = find_mirror()
    if mirror:
        _require_release(mirror, release)
    # In mount and process namespaces of its own, so that what it mounts cannot outlive it, whatever happens.
    run_command("unshare", "--mount", "--pid", "--fork", "--kill-child", "debootstrap",
                "--variant=minbase", f"--include={','.join(packages)}", release, root, mirror, _SCRIPT)  # fmt: skip


def _require_release(mirror: str, release: str) -> None:
    url = f"{mirror}/dists/{release}/Release"
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_MIRROR_SECONDS).close()
    except urllib.error.HTTPError as error:
        error.close()
        raise AssertionError(f"Debian's mirror does not give the release {release!r}: {url}: {error}") from error
    except OSError as error:
        raise AssertionError(
            f"Debian's mirror cannot be reached: {url}: {error}. Its address is the one in apt's configuration "
            "(/etc/apt/sources.list and sources.list.d). Correct it, or connect this machine."
        ) from error


def download_wheels(folder: Path, *, requirements: str, python: str) -> Path:
    """Download the locked wheels for a Python ("3.13") into `folder`, from wherever this machine's pip has them."""
    locked = REPOSITORY / "requirements" / requirements
    run_command(sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download",
                "--require-hashes", "--only-binary", ":all:", "--python-version", python, "--dest", folder,
                "-r", locked)  # fmt: skip
    return folder


class DebianSystem:
    """A system of one release with everything that the tests need, from the user's cache. Use it as a context manager.

    There is one of each release at a time: a second one waits until the first is done with the cache.
    """

    def __init__(self, release: str) -> None:
        self._release = release
        self._cache = cache_folder("debian") / release
        self._root = self._cache / "root"
        #: What a run may write to; deleted afterwards.
        self._run = self._cache / "run"

    def __enter__(self) -> Self:
        assert os.geteuid() == 0, "Debian is unpacked and entered as root: run `make test-debian` as root."
        self._cache.mkdir(exist_ok=True)
        self._lock = (self._cache / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        shutil.rmtree(self._run, ignore_errors=True)  # what a killed run has left
        if not self._root.exists():
            self._make_root()
        self._copy_working_tree()
        self._install()
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._run, ignore_errors=True)
        self._lock.close()

    def describe(self) -> str:
        """The release, and the versions of what the service runs on there."""
        packages = ("python3", "rabbitmq-server", "postgresql-[1-9]?", "pgbouncer", "nodejs", "php-cli")
        show = ("dpkg-query", "--show", "--showformat=${Package} ${Version}\n", *packages)
        versions = run_command(*self._enter("ro", *show)).splitlines()
        return f"Debian {self._release}: {', '.join(versions)}"

    def run(self, *command: str) -> int:
        """Run it in a copy of the working tree, as root and with this terminal, and return its exit status.

        It can write to that copy, /root, /run and /tmp. All else is as it was installed.
        """
        return subprocess.run(self._enter("ro", *command), check=False).returncode

    def _make_root(self) -> None:
        _say(f"Unpacking Debian {self._release} into {self._root}")
        new = self._cache / "root.new"
        shutil.rmtree(new, ignore_errors=True)
        # Nothing here has to survive a power cut, and dpkg would wait for the disk after every file.
        settings = new / "etc/dpkg/dpkg.cfg.d"
        settings.mkdir(parents=True)
        (settings / "tests").write_text("force-unsafe-io\n")
        debootstrap(self._release, new, packages=_PACKAGES)
        (new / "etc/apt/apt.conf.d/90tests").write_text(_APT_SETTINGS)
        for folder in ("payment-callbacks", "wheels"):
            (new / folder).mkdir()
        new.rename(self._root)

    def _copy_working_tree(self) -> None:
        """What git tracks, and what it would; and the baseline, for there is no git in there."""
        for folder in ("payment-callbacks", "root", "run", "tmp"):
            (self._run / folder).mkdir(parents=True)
        (self._run / "tmp").chmod(0o1777)
        (self._run / "root/baseline.tar").write_bytes(read_release(BASELINE))
        listing = ("git", "-C", REPOSITORY, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        names = [name for name in run_command(*listing).split("\0") if name and (REPOSITORY / name).exists()]
        archive = self._run / "tree.tar"
        run_command("tar", "--create", "--file", archive, "--directory", REPOSITORY, "--null", "--files-from=-",
                    given="\0".join(names).encode())  # fmt: skip
        run_command("tar", "--extract", "--no-same-owner", "--file", archive, "--directory",
                    self._run / "payment-callbacks")  # fmt: skip

    def _install(self) -> None:
        """The servers and the locked requirements, as far as an earlier run has not."""
        for name in ("hosts", "resolv.conf"):
            shutil.copy(f"/etc/{name}", self._root / "etc")
        python = (self._root / "usr/bin/python3").readlink().name.removeprefix("python")
        wheels = self._root / "wheels"
        locked = hashlib.sha256((REPOSITORY / "requirements/dev.txt").read_bytes()).hexdigest()
        if not (wheels / locked).exists():
            _say(f"Downloading the locked requirements for Python {python}")
            download_wheels(wheels, requirements="dev.txt", python=python)
            (wheels / locked).touch()
        _say("Installing servers and requirements there")
        run_command(*self._enter("rw", *_proxies(), "make", "servers", "venv"))

    def _enter(self, access: str, *command: str) -> Sequence[str | Path]:
        namespaces = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", _ENTER, "enter")
        return "setpriv", "--pdeathsig=KILL", *namespaces, self._root, self._run, access, *_ENVIRONMENT, *command


def _proxies() -> Sequence[str]:
    return [f"{name}={os.environ[name]}" for name in _PROXIES if name in os.environ]


def _say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    release, *command = sys.argv[1:]
    try:
        with DebianSystem(release) as system:
            _say(system.describe())
            status = system.run(*command)
    except AssertionError as error:
        sys.exit(str(error))
    sys.exit(status)


if __name__ == "__main__":
    main()
