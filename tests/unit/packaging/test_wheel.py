"""What is installed where the source is not: in the image."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
PACKAGES = ("service", "consumers")


def test_the_wheel_holds_every_file_of_both_packages_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for package in PACKAGES:
        caches = shutil.ignore_patterns("__pycache__", ".*_cache")
        shutil.copytree(REPOSITORY / package, source / package, ignore=caches)
    shutil.copy(REPOSITORY / "pyproject.toml", source)
    (source / "README.md").touch()
    expected = {str(file.relative_to(source)) for name in PACKAGES for file in (source / name).rglob("*.*")}

    build = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*build, "--wheel-dir", tmp_path, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == expected
