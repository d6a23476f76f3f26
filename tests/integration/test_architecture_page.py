"""docs/architecture.md names the packages, and the files that a callback really passes through."""

import json
import re
import sys
import tomllib

import pytest

from tests.support.callback_path import PAGE, Leg, files_on_path, make_page
from tests.support.processes import Processes

#: The most files on each part of the path. Goals: 10, 14 and 9. Lower a number when the path gets shorter.
_MAX_FILES = {Leg.RECEIVE: 10, Leg.RECORD: 14, Leg.DELIVER: 9}


@pytest.fixture(scope="module")
def legs(tmp_path_factory: pytest.TempPathFactory) -> dict[Leg, list[str]]:
    processes = Processes(folder=tmp_path_factory.mktemp("path"))
    try:
        process = processes.start_command(sys.executable, "-m", "tests.support.callback_path")
        assert process.wait(within_seconds=300.0) == 0, process.describe()
        return {Leg[name]: files for name, files in json.loads(process.output).items()}
    finally:
        processes.kill_all()


def test_the_page_lists_the_files_that_a_callback_passes_through(legs: dict[Leg, list[str]]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert make_page(legs, page) == page, "run `make path-docs`"


def test_no_part_of_the_path_gets_longer(legs: dict[Leg, list[str]]) -> None:
    lengths = {leg: len(files_on_path(legs[leg])) for leg in _MAX_FILES}
    assert {leg: length for leg, length in lengths.items() if length > _MAX_FILES[leg]} == {}


def test_the_page_has_a_line_for_every_package() -> None:
    packages = {
        str(file.parent.relative_to(PAGE.parents[1]))
        for root in ("service", "consumers")
        for file in (PAGE.parents[1] / root).rglob("*.py")
        if file.stat().st_size
    }
    named = set(re.findall(r"^\| `([a-z_/]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert named == packages


def test_the_page_shows_the_layers_that_are_enforced() -> None:
    with (PAGE.parents[1] / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["id"] == "layers-of-both-packages")
    (shown,) = re.findall(r"## Layers\n.*?```\n(.*?)\n```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert shown.splitlines() == [layer.replace("service.", "") for layer in layers]


def test_the_documents_name_only_files_that_exist() -> None:
    repository = PAGE.parents[1]
    pages = [repository / "README.md", repository / "CONTRIBUTING.md", *(repository / "docs").rglob("*.md")]
    named = {
        (page.name, name)
        for page in pages
        for name in re.findall(r"`((?:service|consumers|tests|docs|helm)/[\w./-]*)`", page.read_text(encoding="utf-8"))
    }
    assert {(page, name) for page, name in named if not (repository / name).exists()} == set()
