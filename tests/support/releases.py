"""Releases of this project as wheels, and the oldest one from which a later one is upgraded."""

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

#: Version 0.1.0; see docs/decisions/0019-the-baseline.md.
BASELINE = "2fbc656b2450b96ce41f2bb5ba57271a99ea5fff"

_REPOSITORY = Path(__file__).parents[2]


def build_wheel(source: Path, *, into: Path) -> Path:
    """Build the project in the folder `source`, as the image does, and return the wheel's path."""
    _run("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", into, source)
    (wheel,) = into.glob("*.whl")
    return wheel


def read_release(revision: str) -> bytes:
    """The files of a revision as a tar archive; an AssertionError where this clone lacks it.

    Where there is no clone, the file BASELINE_ARCHIVE has those of the baseline.
    """
    if file := os.environ.get("BASELINE_ARCHIVE"):
        return Path(file).read_bytes()
    git = ["git", "-C", str(_REPOSITORY)]
    archive = subprocess.run([*git, "archive", revision], capture_output=True, check=False)
    assert archive.returncode == 0, (
        f"this clone lacks the revision {revision}, from which upgrades start. `git fetch --unshallow` fetches it. "
        f"git says: {archive.stderr.decode()}"
    )
    return archive.stdout


def install_release(revision: str, folder: Path) -> Mapping[str, str]:
    """Build the wheel of a revision, and install it into `folder`, on the dependencies that are here.

    Returns the environment variables with which `python -m service.cli` runs that release.
    """
    source, wheels, installed = folder / "source", folder / "wheels", folder / "installed"
    with tarfile.open(fileobj=io.BytesIO(read_release(revision))) as files:
        files.extractall(source, filter="data")
    _run("install", "--no-deps", "--no-index", "--target", installed, build_wheel(source, into=wheels))
    environment = {"PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    where = [sys.executable, "-c", "import service; print(service.__file__)"]
    found = subprocess.run(where, env={**os.environ, **environment}, capture_output=True, text=True, check=True).stdout
    assert found.startswith(str(installed)), f"another release would run: {found}"
    return environment


def _run(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
