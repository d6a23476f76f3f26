"""`payment-callbacks replay`, on the embedded ledger."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine

from service.bootstrap.ledger import make_ledger_engine, make_store
from service.cli.main import main
from service.config.reading import load_settings
from service.config.settings import Settings
from service.ledger.outbox import FailedDelivery, Outbox
from service.ledger.schema import migrate
from tests.support.claims import a_claim

SETTINGS = """\
[merchants.acme]
pay_types = ["bank"]
amount_unit = "yuan"
required_trust = "checksum"
[[endpoints]]
name = "shop"
kind = "webhook"
url = "http://127.0.0.1:1/"
secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "payment-callbacks.toml"
    path.write_text(SETTINGS)
    return path


@pytest.fixture
def settings(path: Path) -> Settings:
    return load_settings(path, {})


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    engine = make_ledger_engine(settings)
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def outbox(settings: Settings, engine: Engine) -> Outbox:
    """Three orders paid: one event delivered, one parked, one not tried yet."""
    store = make_store(settings, engine)
    outbox = Outbox(engine=engine)
    store.record([a_claim(order="DELIVERED")])
    outbox.settle_delivered(outbox.lease_due(endpoint="shop", limit=9, lease_seconds=60))
    store.record([a_claim(order="PARKED")])
    (parked,) = outbox.lease_due(endpoint="shop", limit=9, lease_seconds=60)
    failure = FailedDelivery(delivery=parked, error="the endpoint answered 500", wait_seconds=None)
    assert outbox.settle_failed([failure]) == []
    return outbox


def due(outbox: Outbox) -> list[str]:
    return [delivery.event_id for delivery in outbox.lease_due(endpoint="shop", limit=9, lease_seconds=60)]


def run(path: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["--config", str(path), "replay", *options])


def test_a_named_event_is_due_again_even_if_it_was_delivered(path: Path, outbox: Outbox) -> None:
    result = run(path, "--endpoint", "shop", "acme/DELIVERED/1")
    assert (result.exit_code, result.stdout) == (0, "due again: 1\n")
    assert due(outbox) == ["acme/DELIVERED/1"]


def test_everything_parked_is_due_again(path: Path, outbox: Outbox) -> None:
    assert run(path, "--endpoint", "shop", "--parked").stdout == "due again: 1\n"
    assert due(outbox) == ["acme/PARKED/1"]


def test_an_unknown_event_is_reported(path: Path, outbox: Outbox) -> None:
    result = run(path, "--endpoint", "shop", "acme/PARKED/1", "acme/NONE/1")
    assert result.exit_code == 1
    assert "1 of the named events were never meant for shop" in result.stderr
    assert due(outbox) == ["acme/PARKED/1"]


def test_an_unknown_endpoint_is_refused_with_the_known_ones(path: Path) -> None:
    result = run(path, "--endpoint", "shp", "--parked")
    assert result.exit_code == 2
    assert "the settings know shop" in result.stderr
