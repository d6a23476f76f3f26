"""The project's image, built from its Dockerfile without a daemon, a registry of images, or a network in the build."""

import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.support.base_image import BASE_IMAGE, BASE_PYTHON, ensure_base_image
from tests.support.container_tools import ContainerTools

REPOSITORY = Path(__file__).parents[2]
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
    wheels = _download_wheels(tools.cache / "wheels")
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


def _download_wheels(folder: Path) -> Path:
    locked = REPOSITORY / "requirements" / "postgresql.txt"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--require-hashes"]
    command += ["--only-binary", ":all:", "--python-version", BASE_PYTHON, "--dest", str(folder), "-r", str(locked)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"pip download failed:\n{done.stdout}{done.stderr}"
    return folder
