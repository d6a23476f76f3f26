"""A stand-in for the base that the Dockerfile names, for machines that reach no registry of images.

The same Debian release and the same minor of Python, from Debian's own packages.
"""

import subprocess
import tempfile
from pathlib import Path

from tests.support.container_tools import ContainerTools

#: What the stand-in is called.
BASE_IMAGE = "localhost/payment-callbacks-base:bookworm"
#: The minor of Debian bookworm's Python, as pip writes it.
BASE_PYTHON = "3.11"

_DEBIAN = "bookworm"
_PACKAGES = "python3,python3-venv,ca-certificates"


def ensure_base_image(tools: ContainerTools) -> None:
    """Make it, unless an earlier run did: takes a minute or two and 180 MB."""
    if BASE_IMAGE in tools.podman("images", "--format", "{{.Repository}}:{{.Tag}}").split():
        return
    with tempfile.TemporaryDirectory(prefix="payment-callbacks-base-") as folder:
        root = Path(folder) / "root"
        # In mount and process namespaces of its own, so that what it mounts cannot outlive it, whatever happens.
        _call("unshare", "--mount", "--pid", "--fork", "--kill-child", "nice", "debootstrap", "--variant=minbase",
              f"--include={_PACKAGES}", _DEBIAN, root)  # fmt: skip
        archive = Path(folder) / "root.tar"
        _call("tar", "--create", "--file", archive, "--directory", root, "--exclude=./var/cache/apt/archives/*.deb",
              "--exclude=./var/lib/apt/lists/*", ".")  # fmt: skip
        container = tools.buildah("from", "scratch").strip()
        tools.buildah("add", "--quiet", container, archive, "/")
        tools.buildah("commit", "--quiet", "--rm", container, BASE_IMAGE)


def _call(*command: str | Path) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))} failed:\n{done.stdout[-4000:]}{done.stderr}"
