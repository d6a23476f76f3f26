"""Whatever command an operator begins with, it says the same of a URL that cannot be used."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli.main import main

_SETTINGS = """\
[merchants.acme]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
required_trust = "capability"
token_keys = [{ kid = "k1", key = "0123456789abcdef0123456789abcdef" }]
"""
_COMMANDS = ["config check", "migrate", "topology declare", "dead list", "orders list", "endpoints list", "spool drain"]

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command on settings of the given text; its exit code, and all that it wrote."""

    def run_command(command: str, *, settings: str = _SETTINGS, **environment: str) -> tuple[int, str]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        file = tmp_path / "pc.toml"
        file.write_text(settings)
        done = CliRunner().invoke(main, ["--config", str(file), *command.split()])
        assert done.exception is None or isinstance(done.exception, SystemExit)
        return done.exit_code, done.output

    return run_command


@pytest.mark.parametrize(
    ("variable", "url", "place"),
    [
        ("DATABASE_URL", "postgresql://u:geh@eim@127.0.0.1/d", "database_url"),
        ("DATABASE_URL", "postgresql://u:geheim@127.0.0.1/d?geheim=1", "database_url"),
        ("AMQP_URL", "amqp://u:geh/eim@127.0.0.1/v", "broker.urls.0"),
        ("AMQP_URL", "amqp://u:geheim@127.0.0.1/v?geheim=1", "broker.urls.0"),
        ("AMQP_URL", "amqp://geheim@127.0.0.1/v", "broker.urls.0"),
    ],
)
def test_every_command_prints_the_same_error_for_an_unreadable_url(
    run: Run, variable: str, url: str, place: str
) -> None:
    all_said = {run(command, **{variable: url}) for command in _COMMANDS}
    ((code, said),) = all_said
    assert code == 1
    assert f"pc.toml: {place}: " in said
    assert "percent-encode" in said
    assert f"the environment variable {variable}" in said
    assert "eim" not in said


def test_the_url_for_migrations_is_checked_like_the_other(run: Run) -> None:
    settings = _SETTINGS + '[database]\nmigrate_url = { env = "MIGRATE_URL" }\n'
    urls = {"DATABASE_URL": "postgresql://u:p@h/d", "MIGRATE_URL": "postgresql://u:geh@eim@h/d"}
    code, said = run("config check", settings=settings, **urls)
    assert code == 1
    assert "database.migrate_url: " in said
    assert "given by the environment variable MIGRATE_URL" in said
    assert "eim" not in said


def test_an_embedded_database_has_no_pooler(run: Run) -> None:
    settings = _SETTINGS + "[database]\npooled = true\n"
    code, said = run("config check", settings=settings, DATABASE_URL="sqlite:///file")
    assert code == 1
    assert "remove database.pooled" in said
