"""What is installed where the source is not: in the image."""

import shutil
import zipfile
from pathlib import Path

from tests.support.releases import build_wheel

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

    wheel = build_wheel(source, into=tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == expected
