"""`orders attention`, `orders acknowledge` and `report`, on an embedded ledger."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.bootstrap.ledger import make_ledger_engine, make_store
from service.cli.main import main
from service.config.reading import load_settings
from service.domain.claims import Trust
from service.ledger.schema import migrate
from tests.support.claims import a_claim

_SETTINGS = """\
[merchants.acme]
pay_types = ["bank"]
amount_unit = "yuan"
required_trust = "checksum"
"""
ORDER = "6222021234561236"

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command beside a ledger in which a claim about one order is quarantined."""
    file = tmp_path / "pc.toml"
    file.write_text(_SETTINGS)
    settings = load_settings(file, {})
    engine = make_ledger_engine(settings)
    migrate(engine)
    claim = a_claim(None, trust=Trust.CAPABILITY, order=ORDER, quarantine="pay_status: 6222021234561236")
    make_store(settings, engine).record([claim])
    engine.dispose()
    return lambda *arguments: CliRunner().invoke(main, ["--config", str(file), *arguments])


def test_the_table_names_the_order_and_the_next_command_and_masks_the_detail(run: Run) -> None:
    done = run("orders", "attention")
    shown = " ".join(done.output.split())
    assert done.exit_code == 0
    assert f"quarantined-claim/acme/{ORDER} " in shown
    assert f"payment-callbacks orders show acme {ORDER}" in shown
    assert "pay_status: 6222****1236" in shown


def test_json_holds_the_same_as_the_api(run: Run) -> None:
    (item,) = json.loads(run("orders", "attention", "--json").stdout)["items"]
    assert (item["id"], item["kind"]) == (f"quarantined-claim/acme/{ORDER}", "quarantined-claim")


def test_an_acknowledged_item_is_shown_with_all_only(run: Run) -> None:
    item = f"quarantined-claim/acme/{ORDER}"
    done = run("orders", "acknowledge", item, "--name", "Li", "--note", "the gateway is asked")
    assert (done.exit_code, done.stdout) == (
        0,
        f"{item} is acknowledged by Li (command line): the gateway is asked\n",
    )
    assert ORDER not in run("orders", "attention").output
    assert "Li (command line): the gateway is asked" in " ".join(run("orders", "attention", "--all").output.split())


def test_an_unknown_item_is_an_error_that_says_where_to_look(run: Run) -> None:
    done = run("orders", "acknowledge", "conflict/acme/DK404", "--name", "Li", "--note", "?")
    assert done.exit_code == 1
    assert "nothing called 'conflict/acme/DK404' waits for a person; `orders attention --all` lists" in done.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("orders", "attention", "--after", "x"),
        ("orders", "attention", "--kind", "lost"),
        ("report", "--since", "2026-01-05", "--until", "2026-01-04"),
        ("report", "--day", "2026-01-05", "--since", "2026-01-04"),
        ("report", "--merchant", "nobody"),
        ("orders", "acknowledge", "i", "--name", " ", "--note", "n"),
    ],
)
def test_what_cannot_be_read_is_a_usage_error(run: Run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize("format_", ["table", "json", "csv"])
def test_the_report_ends_with_3_while_something_waits_for_a_person(run: Run, format_: str) -> None:
    assert run("report", "--format", format_).exit_code == 3
    run("orders", "acknowledge", f"quarantined-claim/acme/{ORDER}", "--name", "Li", "--note", "asked")
    assert run("report", "--format", format_).exit_code == 0


def test_the_report_shows_the_same_items_as_the_list(run: Run) -> None:
    listed = json.loads(run("orders", "attention", "--json").stdout)["items"]
    assert json.loads(run("report", "--format", "json").stdout)["attention"] == listed
    assert f"payment-callbacks orders show acme {ORDER}" in " ".join(run("report").stdout.split())
