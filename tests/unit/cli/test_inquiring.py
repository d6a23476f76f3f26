"""`payment-callbacks orders inquire`, on the embedded ledger."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine

from service.bootstrap.ledger import make_ledger_engine, make_store
from service.cli.main import main
from service.config.reading import load_settings
from service.ledger.audit import list_changes
from service.ledger.schema import migrate
from tests.support.claims import a_claim

SETTINGS = """\
[merchants.acme]
pay_types = ["bank"]
amount_unit = "yuan"
required_trust = "checksum"
gateway = { url = "http://127.0.0.1:9/", ua = "ACME", aes_key = "0123456789abcdef" }
"""
#: Long enough to be taken for a card number.
ORDER = "6222021234561236"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "payment-callbacks.toml"
    path.write_text(SETTINGS)
    return path


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    """The ledger, which knows one order."""
    settings = load_settings(path, {})
    engine = make_ledger_engine(settings)
    migrate(engine)
    make_store(settings, engine).record([a_claim(order=ORDER)])
    yield engine
    engine.dispose()


def run(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--config", str(path), *arguments])


def test_an_inquiry_is_audited_and_the_audit_shows_the_whole_order_number(path: Path, engine: Engine) -> None:
    done = run(path, "orders", "inquire", "acme", ORDER, "--by", "Li", "--reason", "the payer waits")
    assert done.exit_code == 0
    assert "A query is scheduled for " in done.stdout
    (change,) = list_changes(engine, limit=10)
    assert (change.action, change.subject) == ("inquire", f"acme/{ORDER}")
    assert (change.changed_by, change.reason) == ("Li (command line)", "the payer waits")
    assert f"acme/{ORDER}" in run(path, "audit").stdout


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["acme", ORDER], 2, "Missing option '--reason'"),
        (["acme", ORDER, "--reason", " "], 2, "--reason must say why"),
        (["acme", "DK404", "--reason", "late"], 1, "unknown order 'DK404'"),
    ],
)
def test_an_inquiry_that_cannot_be_made_is_not_audited(
    path: Path, engine: Engine, arguments: list[str], status: int, said: str
) -> None:
    done = run(path, "orders", "inquire", *arguments)
    assert (done.exit_code, said in done.stderr) == (status, True)
    assert list_changes(engine, limit=10) == []
