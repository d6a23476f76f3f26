"""What an operator reads who made a mistake: which file, which key, what to do; and never a traceback."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import run_module
from tests.support.waiting import HANGS_AFTER_SECONDS

Run = Callable[..., "subprocess.CompletedProcess[str]"]

_GOOD = """\
[merchants.acme]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
required_trust = "capability"
token_keys = [{ kid = "k1", key = "0123456789abcdef0123456789abcdef" }]
"""
_NOBODY = "127.0.0.1:9"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command on settings of the given text."""

    def run_command(*arguments: str, settings: str = _GOOD, **environment: str) -> "subprocess.CompletedProcess[str]":
        file = tmp_path / "pc.toml"
        file.write_text(settings)
        command = ("service.cli", "--config", str(file), *arguments)
        if "PYTHONPATH" in environment:  # which a fork would read too late
            done = subprocess.run(
                [sys.executable, "-m", *command],
                env=environment,
                capture_output=True,
                text=True,
                timeout=HANGS_AFTER_SECONDS,
                check=False,
            )
        else:
            done = run_module(*command, environment=environment)
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return done

    return run_command


@pytest.mark.parametrize("command", [("config", "check"), ("run", "all")])
def test_every_mistake_in_the_settings_is_named_with_its_file_its_key_and_what_was_meant(
    run: Run, command: tuple[str, ...]
) -> None:
    settings = _GOOD.replace("required_trust", "requird_trust") + (
        "[receiver]\nworkers = 0\n"
        '[[endpoints]]\nname = "shop"\nkind = "webhook"\nurl = "ftp://x"\nsecrets = [{ env = "UNSET" }]\n'
    )
    done = run(*command, settings=settings)
    assert done.returncode == 1
    assert "pc.toml: merchants.acme.requird_trust" in done.stderr
    assert "required_trust" in done.stderr
    assert "pc.toml: receiver.workers" in done.stderr
    assert "the environment variable UNSET is not set" in done.stderr


def test_settings_that_are_not_there_or_not_toml_are_said_to_be_so(run: Run, tmp_path: Path) -> None:
    absent = run("--config", str(tmp_path / "absent.toml"), "config", "check")
    assert absent.returncode == 1
    assert "absent.toml: cannot be read: there is no such file" in absent.stderr
    assert "config example" in absent.stderr
    broken = run("config", "check", settings="[merchants")
    assert broken.returncode == 1
    assert "pc.toml: not TOML" in broken.stderr


@pytest.mark.parametrize("command", [("config", "check"), ("run", "all")])
@pytest.mark.parametrize(
    ("variable", "url", "like"),
    [
        ("DATABASE_URL", "mysql://u:geheim@h/d", "database_url: must look like postgresql://"),
        ("AMQP_URL", "http://u:geheim@h/v", "broker.urls.0: must look like amqp://"),
    ],
)
def test_a_url_that_can_never_work_ends_every_command_and_keeps_its_password(
    run: Run, command: tuple[str, ...], variable: str, url: str, like: str
) -> None:
    done = run(*command, **{variable: url})
    assert done.returncode == 1
    assert like in done.stderr
    assert "geheim" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("variable", "url", "place"),
    [
        ("DATABASE_URL", "postgresql://u:geh@eim@127.0.0.1/d", "database_url"),
        ("AMQP_URL", "amqp://u:geheim@127.0.0.1/v?geheim=1", "broker.urls.0"),
    ],
)
def test_every_command_says_the_same_of_a_url_that_its_library_cannot_read(
    run: Run, variable: str, url: str, place: str
) -> None:
    commands = [("config", "check"), ("run", "receiver"), ("run", "all")]
    all_done = [run(*command, **{variable: url}) for command in commands]
    said = {done.stderr for done in all_done}
    assert len(said) == 1, said
    (line,) = said.pop().splitlines()
    assert f"pc.toml: {place}: " in line
    assert "percent-encode" in line
    assert f"the environment variable {variable}" in line
    for done in all_done:
        assert done.returncode == 1
        assert "eim" not in done.stdout + done.stderr


@pytest.mark.parametrize("password", ["p^|{}", "geheim\n"])
@pytest.mark.parametrize("command", [("config", "check"), ("migrate",), ("topology", "declare")])
def test_a_good_password_is_shown_by_no_command(run: Run, command: tuple[str, ...], password: str) -> None:
    settings = _GOOD + f'[broker]\nurls = ["amqp://u:{password.strip()}@{_NOBODY}/v"]\n'
    url = f"postgresql://u:{password.strip()}@{_NOBODY}/d" + ("\n" if password.endswith("\n") else "")
    done = run(*command, settings=settings, DATABASE_URL=url)
    assert done.returncode == (0 if command == ("config", "check") else 1), done.stderr
    assert password.strip() not in done.stdout + done.stderr


@pytest.mark.parametrize("command", [("migrate",), ("orders", "list"), ("dead", "list")])
def test_a_database_that_is_away_is_what_its_commands_say(run: Run, command: tuple[str, ...]) -> None:
    done = run(*command, DATABASE_URL=f"postgresql://u:geheim@{_NOBODY}/d")
    assert done.returncode == 1
    assert "the database cannot be used" in done.stderr
    assert "geheim" not in done.stderr


@pytest.mark.parametrize("command", [("migrate",), ("orders", "list"), ("run", "ledger"), ("run", "all")])
def test_a_database_url_that_names_no_database_of_ours_is_said_to_be_so(run: Run, command: tuple[str, ...]) -> None:
    done = run(*command, DATABASE_URL="sqlite://host")
    assert done.returncode == 1
    assert "database_url: " in done.stderr


@pytest.mark.parametrize("command", [("migrate",), ("orders", "list"), ("run", "ledger"), ("run", "all")])
def test_who_has_no_driver_for_postgresql_is_told_how_to_install_it(
    run: Run, command: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "psycopg.py").write_text("raise ModuleNotFoundError('No module named psycopg')\n")
    done = run(*command, DATABASE_URL=f"postgresql://u:geheim@{_NOBODY}/d", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "requirements/postgresql.txt" in done.stderr
    assert "geheim" not in done.stderr


def test_a_broker_that_is_away_is_what_its_command_says(run: Run) -> None:
    done = run("topology", "declare", AMQP_URL=f"amqp://u:geheim@{_NOBODY}/v")
    assert done.returncode == 1
    assert _NOBODY in done.stderr
    assert "geheim" not in done.stderr


def test_a_folder_that_cannot_be_written_is_what_schemas_says(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("schemas", str(tmp_path / "file" / "folder"))
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


_KEEPS_DATA = [
    *[("run", role) for role in ("receiver", "ledger", "inquirer", "dispatcher", "api", "all")],
    *[("migrate",), ("orders", "list"), ("dead", "list"), ("spool", "drain"), ("report", "--day", "2026-01-05")],
]


@pytest.mark.parametrize("command", _KEEPS_DATA, ids=" ".join)
def test_a_data_directory_that_cannot_be_made_is_what_every_command_says(
    run: Run, command: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    caller = '[[api.tokens]]\nname = "shop"\ntoken = "0123456789abcdef0123456789abcdef"\nscopes = ["read"]\n'
    done = run(*command, settings='data_directory = "file/data"\n' + _GOOD + caller)
    assert done.returncode == 1
    assert f"data_directory {tmp_path}/file/data cannot be made: Not a directory" in done.stderr
    assert "name another one in the settings" in done.stderr


@pytest.mark.parametrize("variable", ["DATABASE_URL", "AMQP_URL"])
def test_a_data_directory_is_looked_at_before_the_roles_where_only_some_of_them_use_it(
    run: Run, variable: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    url = {"DATABASE_URL": f"postgresql://u@{_NOBODY}/d", "AMQP_URL": f"amqp://u:p@{_NOBODY}/v"}[variable]
    done = run("run", "all", settings='data_directory = "file"\n' + _GOOD, **{variable: url})
    assert done.returncode == 1
    assert f"data_directory {tmp_path}/file cannot be made: File exists" in done.stderr


def test_a_data_directory_of_another_user_is_what_the_command_says(tmp_path: Path) -> None:
    """Needs root, which gives up its right to write everywhere."""
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    os.chown(data, 65534, 65534)
    (tmp_path / "pc.toml").write_text(_GOOD)
    drop = ("setpriv", "--inh-caps=-dac_override", "--bounding-set=-dac_override")
    command = (sys.executable, "-m", "service.cli", "--config", tmp_path / "pc.toml", "orders", "list")
    done = subprocess.run(
        [*drop, *command], env={}, capture_output=True, text=True, timeout=HANGS_AFTER_SECONDS, check=False
    )
    assert done.returncode == 1
    assert (
        f"Error: data_directory {data} may not be written to. Make it a folder that user 0 may write to" in done.stderr
    )


def test_a_port_that_is_taken_is_what_the_receiver_says(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("run", "receiver", settings=f'{_GOOD}\n[receiver]\nbind = "127.0.0.1:{port}"\n')
    assert done.returncode == 1
    assert "Connection in use" in done.stdout
    assert str(port) in done.stdout
