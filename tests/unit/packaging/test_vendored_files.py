"""The files from npm that are in the repository. `make vendor` copies them anew; nobody edits them."""

import hashlib
import json
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
NPM = REPOSITORY / "requirements" / "npm"
HASHES = {name: digest for digest, name in map(str.split, (NPM / "vendored.sha256").read_text().splitlines())}


def test_every_vendored_file_is_the_one_that_was_copied() -> None:
    found = {name: hashlib.sha256((REPOSITORY / name).read_bytes()).hexdigest() for name in HASHES}
    assert found == HASHES


def test_every_vendored_file_is_listed_and_has_its_licence() -> None:
    files = {*(REPOSITORY / "service/console/static/vendor").iterdir(), *(REPOSITORY / "tests/browser").glob("axe.*")}
    assert {str(file.relative_to(REPOSITORY)) for file in files} == set(HASHES)
    assert [file for file in files if not file.with_name(file.name.partition(".")[0] + ".LICENSE").is_file()] == []


def test_the_versions_and_licences_are_those_that_were_chosen() -> None:
    packages = json.loads((NPM / "package-lock.json").read_text())["packages"]
    assert {
        name.removeprefix("node_modules/"): (package["version"], package["license"])
        for name, package in packages.items()
        if name
    } == {
        "axe-core": ("4.14.1", "MPL-2.0"),
        "htmx.org": ("4.0.1", "BSD-0-Clause"),
        "uplot": ("1.6.32", "MIT"),
    }
    for name, version in (("axe", "axe v4.14.1"), ("htmx", "4.0.1"), ("uPlot", "(v1.6.32)")):
        (script,) = (file for file in HASHES if file.endswith(".js") and Path(file).name.startswith(name + "."))
        assert version in (REPOSITORY / script).read_text()
