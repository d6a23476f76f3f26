"""`payment-callbacks deliveries`, on the embedded ledger."""

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
from service.ledger.outbox import FailedDelivery, Outbox
from service.ledger.schema import migrate
from tests.support.claims import a_claim
from tests.support.downstream import WEBHOOK_SECRET

_ENDPOINT = f"""
[[endpoints]]
name = "%s"
kind = "webhook"
url = "http://127.0.0.1:9/"
secrets = ["{WEBHOOK_SECRET}"]
"""
SETTINGS = """\
[merchants.acme]
pay_types = ["bank"]
amount_unit = "yuan"
required_trust = "checksum"
"""
#: Long enough to be taken for a card number.
ORDER = "6222021234561236"
EVENT = f"acme/{ORDER}/1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "payment-callbacks.toml"
    path.write_text(SETTINGS + _ENDPOINT % "shop" + _ENDPOINT % "books")
    return path


@pytest.fixture(autouse=True)
def engine(path: Path) -> Iterator[Engine]:
    """The ledger: one event is delivered to the shop and parked for the books, another one is open for both."""
    settings = load_settings(path, {})
    engine = make_ledger_engine(settings)
    migrate(engine)
    store, outbox = make_store(settings, engine), Outbox(engine=engine)
    store.record([a_claim(order=ORDER)])
    outbox.settle_delivered(outbox.lease_due(endpoint="shop", limit=9, lease_seconds=60))
    (due,) = outbox.lease_due(endpoint="books", limit=9, lease_seconds=60)
    outbox.settle_failed([FailedDelivery(delivery=due, error="card 6222021234561236 refused", wait_seconds=None)])
    store.record([a_claim(order="DK2")])
    yield engine
    engine.dispose()


def run(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--config", str(path), "deliveries", *arguments])


def listed(path: Path, *arguments: str) -> list[tuple[str, str, str]]:
    return [
        (delivery["event_id"], delivery["endpoint"], delivery["state"])
        for delivery in json.loads(run(path, *arguments, "--json").stdout)["deliveries"]
    ]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["--state", "open"], [("acme/DK2/1", "books", "open"), ("acme/DK2/1", "shop", "open")]),
        (["--state", "open", "--endpoint", "shop"], [("acme/DK2/1", "shop", "open")]),
        (["--state", "parked"], [(EVENT, "books", "parked")]),
        (["--order", "acme", ORDER], [(EVENT, "books", "parked"), (EVENT, "shop", "delivered")]),
        (["--order", "acme", ORDER, "--state", "delivered"], [(EVENT, "shop", "delivered")]),
        (["--order", "acme", "DK404"], []),
    ],
)
def test_deliveries_are_listed_by_endpoint_state_and_order(
    path: Path, filters: list[str], expected: list[tuple[str, str, str]]
) -> None:
    assert listed(path, "list", *filters) == expected


def test_pages_have_each_delivery_once(path: Path) -> None:
    first: dict[str, Any] = json.loads(run(path, "list", "--state", "open", "--limit", "1", "--json").stdout)
    assert [delivery["endpoint"] for delivery in first["deliveries"]] == ["books"]
    rest = listed(path, "list", "--state", "open", "--after", first["next"])
    assert rest == [("acme/DK2/1", "shop", "open")]


def test_one_event_is_shown_with_the_tries_of_each_endpoint(path: Path) -> None:
    assert listed(path, "show", EVENT) == [(EVENT, "books", "parked"), (EVENT, "shop", "delivered")]
    header, parked, delivered, *log = run(path, "show", EVENT).stdout.splitlines()
    assert header.split()[:5] == ["event", "type", "endpoint", "state", "tries"]
    assert parked.split()[:5] == [EVENT, "payment.succeeded", "books", "parked", "1"]
    assert parked.rstrip().endswith("card 6222****1236 refused")
    assert delivered.split()[:5] == [EVENT, "payment.succeeded", "shop", "delivered", "1"]
    assert log[0].strip() == "What has happened: the first step, and the last nine"
    assert log[-1].split()[0] == "books"
    assert log[-1].rstrip().endswith("card 6222****1236 refused")


def test_an_event_without_deliveries_is_an_error_that_says_where_to_look(path: Path) -> None:
    done = run(path, "show", "acme/DK404/1")
    assert done.exit_code == 1
    assert "there is no delivery of an event 'acme/DK404/1': `orders show` lists" in done.stderr


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ([], "name --state open, --state parked, or an --order"),
        (["--endpoint", "shop"], "name --state open, --state parked, or an --order"),
        (["--state", "delivered"], "name --state open, --state parked, or an --order"),
        (["--state", "lost"], "'lost' is not one of"),
        (["--state", "open", "--after", "x"], "--after has to be the value that an earlier page printed"),
        (["--order", "acme"], "'--order' requires 2 arguments"),
    ],
)
def test_a_filter_that_cannot_be_used_is_refused(path: Path, filters: list[str], said: str) -> None:
    done = run(path, "list", *filters)
    assert (done.exit_code, said in done.stderr) == (2, True)
