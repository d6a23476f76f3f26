"""`orders attention`, `orders acknowledge` and `report`, on an embedded ledger."""

import json
import shlex
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from service.bootstrap.ledger import make_ledger_engine, make_store
from service.cli.main import main
from service.config.reading import load_settings
from service.domain.claims import OrderStatus, Trust
from service.ledger.attention import GROUPED_FROM, AttentionItem, AttentionKind
from service.ledger.store import LedgerStore
from tests.support.claims import a_claim
from tests.support.ledger import make_sqlite_ledger

_SETTINGS = """\
[merchants.acme]
pay_types = ["bank"]
amount_unit = "yuan"
required_trust = "checksum"
"""
ORDER = "6222021234561236"

Run = Callable[..., Result]


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    file = tmp_path / "pc.toml"
    file.write_text(_SETTINGS)
    return file


@pytest.fixture
def store(settings_file: Path) -> Iterator[LedgerStore]:
    """A ledger in which a claim about one order is quarantined."""
    settings = load_settings(settings_file, {})
    make_sqlite_ledger(settings.data_directory / "ledger.sqlite3")
    engine = make_ledger_engine(settings)
    store = make_store(settings, engine)
    store.record([a_claim(None, trust=Trust.CAPABILITY, order=ORDER, quarantine="pay_status: 6222021234561236")])
    yield store
    engine.dispose()


@pytest.fixture
def run(settings_file: Path, store: LedgerStore) -> Run:
    """Runs a command beside that ledger."""
    return lambda *arguments: CliRunner().invoke(main, ["--config", str(settings_file), *arguments])


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


@pytest.mark.parametrize("kind", AttentionKind)
@pytest.mark.parametrize("order", ["DK 1", "-1"])
def test_the_next_step_of_each_kind_is_a_command_with_all_that_it_requires(kind: AttentionKind, order: str) -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    item = AttentionItem(
        id=f"{kind}/{order}/1",
        kind=kind,
        merchant="acme",
        biz_order_no=order,
        endpoint="shop",
        event_id=f"acme/{order}/1",
        since=moment,
        changed_at=moment,
        detail="",
        orders=1,
        events=0,
        amount=None,
        amount_unit=None,
        acknowledged_by=None,
        acknowledged_at=None,
        note=None,
    )
    program, *words = shlex.split(item.next_step)
    assert program == "payment-callbacks"
    command: click.Command = main
    with click.Context(main) as context:
        while isinstance(command, click.Group):
            name, found, words = command.resolve_command(context, words)
            assert found is not None, name
            command = found
        # Raises where an option is unknown or a required one is missing.
        command.make_context(name, list(words), parent=context)
    needs_reason = any("--reason" in option.opts for option in command.params)
    assert needs_reason == ("--reason" in words)


def test_an_acknowledged_item_is_shown_with_all_only(run: Run) -> None:
    item = f"quarantined-claim/acme/{ORDER}"
    done = run("orders", "acknowledge", item, "--by", "Li", "--note", "the gateway is asked")
    assert (done.exit_code, done.stdout) == (
        0,
        f"{item} is acknowledged by Li (command line): the gateway is asked\n",
    )
    assert ORDER not in run("orders", "attention").output
    assert "Li (command line): the gateway is asked" in " ".join(run("orders", "attention", "--all").output.split())


def test_a_group_of_conflicts_is_one_line_and_its_command_lists_the_orders(run: Run, store: LedgerStore) -> None:
    for number in range(GROUPED_FROM):
        order = f"DK{number}"
        store.record([a_claim(order=order), a_claim(OrderStatus.FAILED, order=order, minute=1)])
    shown = " ".join(run("orders", "attention", "--kind", "disputed-field").output.split())
    assert f"status: {GROUPED_FROM} orders" in shown
    command = "payment-callbacks orders attention --group disputed-field/acme/status"
    assert command in shown
    listed = run(*shlex.split(command)[1:], "--json")
    assert {item["id"] for item in json.loads(listed.stdout)["items"]} == {
        f"conflict/acme/DK{number}" for number in range(GROUPED_FROM)
    }


def test_an_unknown_item_is_an_error_that_says_where_to_look(run: Run) -> None:
    done = run("orders", "acknowledge", "conflict/acme/DK404", "--by", "Li", "--note", "?")
    assert done.exit_code == 1
    assert "nothing called 'conflict/acme/DK404' waits for a person; `orders attention --all` lists" in done.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("orders", "attention", "--after", "x"),
        ("orders", "attention", "--kind", "lost"),
        ("orders", "attention", "--group", "conflict/acme/DK1"),
        ("report", "--since", "2026-01-05", "--until", "2026-01-04"),
        ("report", "--day", "2026-01-05", "--since", "2026-01-04"),
        ("report", "--merchant", "nobody"),
        ("orders", "acknowledge", "i", "--by", " ", "--note", "n"),
    ],
)
def test_what_cannot_be_read_is_a_usage_error(run: Run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize("format_", ["table", "json", "csv"])
def test_the_report_ends_with_3_while_something_waits_for_a_person(run: Run, format_: str) -> None:
    assert run("report", "--format", format_).exit_code == 3
    run("orders", "acknowledge", f"quarantined-claim/acme/{ORDER}", "--by", "Li", "--note", "asked")
    assert run("report", "--format", format_).exit_code == 0


def test_the_report_shows_the_same_items_as_the_list(run: Run) -> None:
    listed = json.loads(run("orders", "attention", "--json").stdout)["items"]
    assert json.loads(run("report", "--format", "json").stdout)["attention"] == listed
    assert f"payment-callbacks orders show acme {ORDER}" in " ".join(run("report").stdout.split())
