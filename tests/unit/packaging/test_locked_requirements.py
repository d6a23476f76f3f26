"""The locked requirements against pyproject.toml, without a network. `make lock` mends what fails here."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[3]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())

RUN = PROJECT["project"]["dependencies"]
POSTGRESQL = PROJECT["project"]["optional-dependencies"]["postgresql"]
OTEL = PROJECT["project"]["optional-dependencies"]["otel"]
DEV = PROJECT["dependency-groups"]["dev"]
SHIP = PROJECT["dependency-groups"]["ship"]
HELM = PROJECT["dependency-groups"]["helm"]
PEERS = PROJECT["dependency-groups"]["peers"]
BUILD = (REPOSITORY / "requirements" / "build.in").read_text().split()

WANTED = {
    "run.txt": [*RUN, *BUILD],
    "postgresql.txt": [*RUN, *BUILD, *POSTGRESQL],
    "otel.txt": [*RUN, *BUILD, *OTEL],
    "dev.txt": [*RUN, *BUILD, *POSTGRESQL, *OTEL, *DEV],
    "ship.txt": [*RUN, *BUILD, *SHIP],
    "helm.txt": HELM,
    "peers.txt": PEERS,
}


def locked(file_name: str) -> dict[str, tuple[str, int]]:
    """By name: the pinned version, and how many hashes it has."""
    text = (REPOSITORY / "requirements" / file_name).read_text().replace("\\\n", " ")
    pins: dict[str, tuple[str, int]] = {}
    for line in text.splitlines():
        requirement = Requirement(re.sub(r"--hash=\S+", "", line).strip())
        (pin,) = requirement.specifier
        assert pin.operator == "=="
        pins[canonicalize_name(requirement.name)] = (pin.version, line.count("--hash=sha256:"))
    return pins


@pytest.mark.parametrize("file_name", WANTED)
def test_the_locked_versions_are_those_that_pyproject_asks_for(file_name: str) -> None:
    pins = locked(file_name)
    for wanted in map(Requirement, WANTED[file_name]):
        name = canonicalize_name(wanted.name)
        assert name in pins, f"{name} is not locked"
        assert pins[name][0] in wanted.specifier, f"{name} is locked at {pins[name][0]}, wanted is {wanted}"


@pytest.mark.parametrize("file_name", WANTED)
def test_every_locked_version_has_its_hashes(file_name: str) -> None:
    assert [name for name, (_, hashes) in locked(file_name).items() if hashes == 0] == []


@pytest.mark.parametrize("file_name", ["run.txt", "postgresql.txt", "otel.txt"])
def test_what_is_tested_is_what_runs(file_name: str) -> None:
    tested = locked("dev.txt")
    assert {name: version for name, version in locked(file_name).items() if tested.get(name) != version} == {}


@pytest.mark.parametrize("file_name", ["ship.txt", "peers.txt"])
def test_no_two_locks_want_different_versions(file_name: str) -> None:
    tested = locked("dev.txt")
    other = locked(file_name)
    assert {name for name in tested.keys() & other.keys() if tested[name] != other[name]} == set()


@pytest.mark.parametrize("file_name", WANTED)
def test_the_lock_names_no_package_index(file_name: str) -> None:
    assert "://" not in (REPOSITORY / "requirements" / file_name).read_text()


@pytest.mark.parametrize("folder", ["requirements/npm", "tests/benchmarks/peers"])
def test_a_lock_for_npm_has_hashes_and_names_no_registry(folder: str) -> None:
    lock = json.loads((REPOSITORY / folder / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages
    assert [name for name, package in packages.items() if "integrity" not in package or "resolved" in package] == []
    assert (
        lock["packages"][""]["dependencies"]
        == json.loads((REPOSITORY / folder / "package.json").read_text())["dependencies"]
    )
