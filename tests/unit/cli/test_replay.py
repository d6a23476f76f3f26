"""`payment-callbacks replay`, on the embedded ledger."""

import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine

from consumers.maintenance import replaying
from service.bootstrap.ledger import make_ledger_engine, make_store
from service.cli.main import main
from service.config.reading import load_settings
from service.config.settings import Settings
from service.ledger.outbox import FailedDelivery, Outbox
from service.ledger.replays import Replays, ReplayWindow
from tests.support.claims import AUTHOR, NOON, a_claim
from tests.support.ledger import make_sqlite_ledger

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
    make_sqlite_ledger(settings.data_directory / "ledger.sqlite3")
    engine = make_ledger_engine(settings)
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
    result = run(path, "--endpoint", "shop", "acme/DELIVERED/1", "--reason", "lost")
    assert (result.exit_code, result.stdout) == (0, "due again: 1\n")
    assert due(outbox) == ["acme/DELIVERED/1"]


def test_everything_parked_is_due_again(path: Path, outbox: Outbox) -> None:
    assert run(path, "--endpoint", "shop", "--parked", "--reason", "repaired").stdout == "due again: 1\n"
    assert due(outbox) == ["acme/PARKED/1"]


def test_an_unknown_event_is_reported(path: Path, outbox: Outbox) -> None:
    result = run(path, "--endpoint", "shop", "acme/PARKED/1", "acme/NONE/1", "--reason", "lost")
    assert result.exit_code == 1
    assert "1 of the named events were never meant for shop" in result.stderr
    assert due(outbox) == ["acme/PARKED/1"]


def test_an_unknown_endpoint_is_refused_with_the_known_ones(path: Path) -> None:
    result = run(path, "--endpoint", "shp", "--parked")
    assert result.exit_code == 2
    assert "the settings know shop" in result.stderr


WINDOW = ("--endpoint", "shop", "--since", "2020-01-01T00:00:00Z")


def window_until_now(*options: str) -> tuple[str, ...]:
    return (*WINDOW, "--until", datetime.now(UTC).isoformat(), *options)


@pytest.fixture
def dispatcher(engine: Engine) -> Iterator[None]:
    with replaying(Replays(engine=engine), every_seconds=0.01):
        yield


def test_a_window_is_only_counted_at_first_and_the_command_that_replays_it_is_printed(
    path: Path, outbox: Outbox, dispatcher: None
) -> None:
    counted = run(path, *WINDOW, "--status", "succeeded")
    assert counted.exit_code == 0
    first, second = counted.stdout.splitlines()
    assert first == "events for shop: 2, in about 1 s. Nothing was replayed."
    command = shlex.split(second.removeprefix("To replay them: payment-callbacks replay "))
    done = run(path, *command[:-1], "they lost a day", "--by", "Li Lei")
    assert done.exit_code == 0
    assert done.stdout.startswith("replay 1 to shop, by Li Lei (command line) at ")
    assert done.stdout.endswith(": done, due again: 2 of 2\n")
    assert due(outbox) == ["acme/DELIVERED/1", "acme/PARKED/1"]


def test_a_window_with_another_number_of_events_is_not_replayed(path: Path, outbox: Outbox) -> None:
    result = run(path, *window_until_now("--confirm", "3", "--reason", "lost"))
    assert result.exit_code == 1
    assert "nothing was replayed: the window has 2 events now, not 3" in result.stderr
    assert due(outbox) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "name event ids, or use one of"),
        (["--parked", "--since", "2026-01-05T00:00:00Z"], "use one of"),
        (["--since", "2026-01-05T00:00:00"], "does not say its zone"),
        (["--since", "2026-01-05T00:00:00Z", "--until", "2026-01-04T00:00:00Z"], "--since must be before --until"),
        (["--since", "2026-01-05T00:00:00Z", "--until", "2999-01-01T00:00:00Z"], "--until is in the future"),
        (["--since", "2026-01-05T00:00:00Z", "--status", "paid"], "'paid' is not one of"),
        (["--parked", "--status", "failed"], "--status needs --since"),
        (["--parked"], "--reason must say why"),
        (["--since", "2026-01-05T00:00:00Z", "--confirm", "1"], "--reason must say why"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(path: Path, options: list[str], said: str) -> None:
    result = run(path, "--endpoint", "shop", *options)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_replay_can_be_stopped_and_is_in_the_audit(path: Path, outbox: Outbox, engine: Engine) -> None:
    window = ReplayWindow(endpoint="shop", since=NOON.replace(year=2020), until=datetime.now(UTC))
    Replays(engine=engine).request(window, expected=2, author=AUTHOR)
    stopped = run(path, "--stop", "1", "--reason", "the wrong endpoint", "--by", "Han Meimei")
    assert stopped.stdout.endswith(": stopped, due again: 0 of 2\n")
    assert run(path, "--watch", "1").stdout == stopped.stdout
    audit = CliRunner().invoke(main, ["--config", str(path), "audit"]).stdout.splitlines()
    stop, request = audit[1:]
    assert all(words in stop for words in ("stop-replay", "Han Meimei", "replay 1", "the wrong endpoint"))
    assert all(words in request for words in ("replay", "Li Lei", "shop: 2 events", "they have lost it"))


def test_an_unknown_replay_is_named(path: Path, engine: Engine) -> None:
    result = run(path, "--watch", "7")
    assert (result.exit_code, "there is no replay 7" in result.stderr) == (1, True)
