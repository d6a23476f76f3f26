"""What a command prints, to a pipe that is closed, to a full disk, and in a locale without its characters."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.deployment import Deployment, Place
from tests.support.waiting import HANGS_AFTER_SECONDS

# By click's own words, by rich's tables, by csv, and by nothing but a line.
_COMMANDS = [
    ("--help",),
    ("report", "--day", "2026-01-01"),
    ("report", "--day", "2026-01-01", "--format", "csv"),
    ("keys", "new"),
]


@pytest.fixture(scope="module")
def command_line(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """The words of a command on settings that are good, with a ledger in place."""
    with Deployment(folder=tmp_path_factory.mktemp("commands"), place=Place(), downstreams={}) as deployment:
        deployment.prepare()
        return deployment.command_line


def _run(command: list[str], output: int, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        stdout=output,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        encoding="utf-8",
        timeout=HANGS_AFTER_SECONDS,
        check=False,
    )


@pytest.mark.parametrize("command", _COMMANDS, ids=" ".join)
def test_a_full_disk_is_an_error_of_one_line(command_line: Callable[..., list[str]], command: tuple[str, ...]) -> None:
    output = os.open("/dev/full", os.O_WRONLY)
    done = _run(command_line(*command), output)
    os.close(output)
    assert done.returncode == 1
    assert done.stderr.endswith("Error: the output cannot be written: No space left on device\n")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("command", _COMMANDS, ids=" ".join)
def test_a_pipe_that_nobody_reads_any_more_is_a_quiet_end(
    command_line: Callable[..., list[str]], command: tuple[str, ...]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = _run(command_line(*command), writer)
    os.close(writer)
    assert done.returncode == 1
    assert "Error" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_command_works_without_standard_output_and_leaves_its_place_to_no_other_file(
    command_line: Callable[..., list[str]],
) -> None:
    closed = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command_line("orders", "list")]
    assert subprocess.run(closed, timeout=HANGS_AFTER_SECONDS, check=False).returncode == 0


@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "gbk:strict"},
    ],
    ids=["the C locale", "ascii", "gbk"],
)
def test_standard_output_is_utf8_whatever_the_locale_says(tmp_path: Path, locale: dict[str, str]) -> None:
    body = tmp_path / "callback.json"
    body.write_text('{"channel_response":"余额不足","sign":"0123456789abcdef0123456789abcdef"}', encoding="utf-8")
    command = [sys.executable, "-m", "service.cli", "sign", "explain", "--unmasked", str(body)]
    done = _run(command, subprocess.PIPE, **locale)
    assert "余额不足" in done.stdout
