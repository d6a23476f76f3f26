"""`payment-callbacks endpoints`, on the embedded ledger."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine

from service.bootstrap.ledger import make_ledger_engine, make_store
from service.cli.main import main
from service.config.reading import load_settings
from service.ledger.outbox import Outbox
from tests.support.claims import a_claim
from tests.support.downstream import WEBHOOK_SECRET, Downstream
from tests.support.ledger import make_sqlite_ledger

SETTINGS = """\
[merchants.acme]
pay_types = ["bank"]
amount_unit = "yuan"
required_trust = "checksum"
[[endpoints]]
name = "shop"
kind = "webhook"
url = "{url}?key=a-key-of-theirs"
secrets = ["{secret}"]
[[endpoints]]
name = "books"
kind = "webhook"
url = "{url}"
secrets = ["{secret}"]
types = ["payment.succeeded", "payment.corrected"]
merchants = ["acme"]
"""


@pytest.fixture
def shop() -> Iterator[Downstream]:
    with Downstream() as downstream:
        yield downstream


@pytest.fixture
def path(tmp_path: Path, shop: Downstream) -> Path:
    path = tmp_path / "payment-callbacks.toml"
    path.write_text(SETTINGS.format(url=shop.url, secret=WEBHOOK_SECRET))
    return path


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    """The ledger, with one event that waits for each endpoint."""
    settings = load_settings(path, {})
    make_sqlite_ledger(settings.data_directory / "ledger.sqlite3")
    engine = make_ledger_engine(settings)
    make_store(settings, engine).record([a_claim()])
    yield engine
    engine.dispose()


@pytest.fixture
def outbox(engine: Engine) -> Outbox:
    return Outbox(engine=engine)


def run(path: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["--config", str(path), "endpoints", *options])


def listed(path: Path) -> dict[str, Any]:
    return {row["endpoint"]: row for row in json.loads(run(path, "list", "--json").stdout)["endpoints"]}


def due(outbox: Outbox, endpoint: str) -> int:
    return len(outbox.lease_due(endpoint=endpoint, limit=9, lease_seconds=0.001))


def test_endpoints_are_listed_with_their_filters_and_open_deliveries(
    path: Path, outbox: Outbox, shop: Downstream
) -> None:
    outbox.settle_delivered(outbox.lease_due(endpoint="books", limit=9, lease_seconds=60))
    rows = listed(path)
    assert list(rows) == ["shop", "books"]
    assert (rows["shop"]["open"], rows["shop"]["last_delivered_at"], rows["shop"]["merchants"]) == (1, None, None)
    assert rows["shop"]["oldest_open_seconds"] >= 0
    assert (rows["books"]["open"], rows["books"]["merchants"]) == (0, ["acme"])
    assert rows["books"]["types"] == ["payment.corrected", "payment.succeeded"]
    assert rows["books"]["last_delivered_at"] is not None
    table = run(path, "list").stdout
    assert shop.url in table
    assert "corrected, succeeded; of acme" in table


def test_the_query_of_a_url_is_not_shown(path: Path, engine: Engine, shop: Downstream) -> None:
    assert listed(path)["shop"]["address"] == f"{shop.url}?…"
    assert "a-key-of-theirs" not in run(path, "list").stdout


def test_a_removed_endpoint_is_listed_while_deliveries_to_it_are_open(path: Path, engine: Engine) -> None:
    path.write_text(path.read_text().replace('name = "books"', 'name = "accounts"'))
    row = listed(path)["books"]
    assert (row["kind"], row["open"]) == (None, 1)
    assert "not in the settings" in run(path, "list").stdout


def test_a_paused_endpoint_gets_nothing_and_the_list_shows_the_pause(path: Path, outbox: Outbox) -> None:
    paused = run(path, "pause", "shop", "--by", "Li Lei", "--reason", "they are moving")
    assert paused.exit_code == 0
    assert "by Li Lei (command line): they are moving" in paused.stdout
    assert (due(outbox, "shop"), due(outbox, "books")) == (0, 1)
    row = listed(path)["shop"]["paused"]
    assert (row["by"], row["reason"]) == ("Li Lei (command line)", "they are moving")
    assert row["since"]
    assert "they are moving" in run(path, "list").stdout

    resumed = run(path, "resume", "shop", "--reason", "over")
    assert "Events that wait for it: 1" in resumed.stdout
    assert due(outbox, "shop") == 1
    assert listed(path)["shop"]["paused"] is None


def test_a_pause_without_a_name_has_that_of_the_user(
    path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "han")
    run(path, "pause", "shop", "--reason", "moving")
    assert listed(path)["shop"]["paused"]["by"] == "han (command line)"


def test_a_second_pause_keeps_the_first_one(path: Path, engine: Engine) -> None:
    run(path, "pause", "shop", "--by", "Li Lei", "--reason", "moving")
    again = run(path, "pause", "shop", "--by", "Han Meimei", "--reason", "slow")
    assert again.exit_code == 0
    assert "by Li Lei (command line): moving" in again.stdout


def test_a_pause_needs_a_reason(path: Path, engine: Engine) -> None:
    assert run(path, "pause", "shop").exit_code == 2
    assert run(path, "pause", "shop", "--reason", "  ").exit_code == 2


def test_a_pause_by_nobody_is_refused(path: Path, engine: Engine) -> None:
    refused = run(path, "pause", "shop", "--by", " ", "--reason", "moving")
    assert (refused.exit_code, "the name of a person must not be empty" in refused.stderr) == (2, True)
    assert listed(path)["shop"]["paused"] is None


@pytest.mark.parametrize(
    "command", [("pause", "shp", "--reason", "r"), ("resume", "shp", "--reason", "over"), ("test", "shp")]
)
def test_an_unknown_endpoint_is_refused_with_the_known_ones(
    path: Path, engine: Engine, command: tuple[str, ...]
) -> None:
    result = run(path, *command)
    assert result.exit_code == 2
    assert "the settings know shop, books" in result.stderr


def test_a_removed_endpoint_can_be_resumed(path: Path, engine: Engine) -> None:
    run(path, "pause", "books", "--reason", "moving")
    path.write_text(path.read_text().replace('name = "books"', 'name = "accounts"'))
    assert "books is resumed" in run(path, "resume", "books", "--reason", "over").stdout


def test_resuming_an_endpoint_that_is_not_paused_does_nothing(path: Path, engine: Engine) -> None:
    result = run(path, "resume", "shop", "--reason", "over")
    assert (result.exit_code, result.stdout) == (0, "shop was not paused\n")


def test_a_test_is_sent_signed_while_paused_and_changes_no_delivery(
    path: Path, engine: Engine, shop: Downstream
) -> None:
    run(path, "pause", "shop", "--reason", "moving")
    before = listed(path)["shop"]["open"]
    result = run(path, "test", "shop")
    assert result.exit_code == 0
    assert "shop: the endpoint answered 204, in " in result.stdout
    (told,) = shop.received
    assert told.type == "payment.test"
    assert listed(path)["shop"]["open"] == before


def test_a_test_that_is_not_accepted_ends_with_1_and_shows_the_answer(path: Path, shop: Downstream) -> None:
    shop.fail(500)
    result = run(path, "test", "shop")
    assert result.exit_code == 1
    assert "shop: the endpoint answered 500, in " in result.stderr
