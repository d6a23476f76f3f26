"""Liveness and readiness, answered in bounded time whatever the database does."""

import threading
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from service.api.health import Drain, Health
from service.ledger.errors import LedgerUnavailable
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually


def make_health(
    schema_serves: Callable[[], bool], *, drain: Drain | None = None, seconds: float = HANGS_AFTER_SECONDS
) -> Health:
    return Health(drain=drain or Drain(), schema_serves=schema_serves, answer_within_seconds=seconds)


def away() -> bool:
    raise LedgerUnavailable("connection refused")


@pytest.mark.parametrize(
    ("schema_serves", "status", "text"),
    [
        (lambda: True, 200, "ready"),
        (lambda: False, 503, "the ledger lacks this release's schema"),
        (away, 503, "the ledger cannot be used"),
    ],
)
def test_readiness_depends_on_the_ledger(schema_serves: Callable[[], bool], status: int, text: str) -> None:
    answer = make_health(schema_serves).ready()
    assert (answer.status_code, answer.get_data(as_text=True)) == (status, text)


def test_liveness_does_not_ask_the_ledger() -> None:
    asked = threading.Event()

    def schema_serves() -> bool:
        asked.set()
        return True

    answer = make_health(schema_serves).alive()
    assert (answer.status_code, answer.get_data(as_text=True)) == (200, "alive")
    assert not asked.is_set()


def test_a_draining_worker_is_not_ready_whatever_the_state_of_the_ledger() -> None:
    drain = Drain()
    health = make_health(lambda: True, drain=drain)
    drain.begin()
    assert (health.ready().status_code, health.ready().get_data(as_text=True)) == (503, "draining")
    assert health.alive().status_code == 200


def test_probes_share_one_check_of_a_hanging_ledger_and_are_ready_again_when_it_answers() -> None:
    asked: list[None] = []
    answers = threading.Event()

    def hang() -> bool:
        asked.append(None)
        return answers.wait(HANGS_AFTER_SECONDS)

    health = make_health(hang, seconds=0.2)
    assert [health.ready().get_data(as_text=True) for _ in range(3)] == ["the ledger does not answer in time"] * 3
    assert len(asked) == 1
    answers.set()
    eventually(lambda: health.ready().status_code == 200)


def test_the_health_routes_need_no_token_and_without_a_ledger_the_api_is_alive_but_not_ready(
    anonymous: FlaskClient,
) -> None:
    assert anonymous.get("/healthz").status_code == 200
    assert (anonymous.get("/readyz").status_code, anonymous.get("/readyz").text) == (
        503,
        "the ledger lacks this release's schema",
    )
