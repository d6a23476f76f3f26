"""The time limits of tests: one that runs into its limit fails alone, whatever it is doing then."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.waiting import HANGS_AFTER_SECONDS

_REPOSITORY = Path(__file__).parents[3]

_SETTINGS = """\
[pytest]
filterwarnings = error
"""

_HOOKS = """\
import time

import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    yield
    if item.name == "test_slow_in_a_hook":
        time.sleep(600)
"""

_TESTS = """\
import time

import pytest

pytestmark = pytest.mark.timeout(0.5)


@pytest.fixture
def slow_to_begin():
    time.sleep(600)


@pytest.fixture
def slow_to_end():
    yield
    time.sleep(600)


def test_slow_to_begin(slow_to_begin):
    pass


def test_slow_to_end(slow_to_end):
    pass


def test_slow():
    time.sleep(600)


def test_slow_in_a_hook():
    pass


@pytest.mark.timeout(0.5, func_only=True)
def test_slow_without_its_fixtures():
    time.sleep(600)


@pytest.mark.timeout(600)
def test_quick():
    pass
"""


def test_a_slow_test_fails_alone_wherever_its_time_is_up(tmp_path: Path) -> None:
    for name, content in {"pytest.ini": _SETTINGS, "conftest.py": _HOOKS, "test_all.py": _TESTS}.items():
        (tmp_path / name).write_text(content)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-n", "1", "-rA", "--tb", "no"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(_REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=HANGS_AFTER_SECONDS,
        check=False,
    )
    words = [line.split() for line in done.stdout.partition("short test summary")[2].splitlines()]
    outcomes = {(line[1].partition("::")[2], line[0]) for line in words if len(line) > 1 and "::" in line[1]}
    assert outcomes == {
        ("test_slow_to_begin", "ERROR"),
        ("test_slow_to_end", "PASSED"),
        ("test_slow_to_end", "ERROR"),
        ("test_slow", "FAILED"),
        ("test_slow_in_a_hook", "FAILED"),
        ("test_slow_without_its_fixtures", "FAILED"),
        ("test_quick", "PASSED"),
    }, done.stdout + done.stderr
