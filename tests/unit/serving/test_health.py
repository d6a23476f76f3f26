"""Liveness and readiness, answered in bounded time whatever the database does."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from service.bootstrap.ledger import make_readiness_check
from service.ledger.database import make_engine
from service.serving.health import Drain, Health
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually


def make_health(
    find_trouble: Callable[[], str], *, drain: Drain | None = None, seconds: float = HANGS_AFTER_SECONDS
) -> Health:
    return Health(drain=drain or Drain(), find_trouble=find_trouble, answer_within_seconds=seconds)


@pytest.mark.parametrize(("trouble", "status", "text"), [("", 200, "ready"), ("it is away", 503, "it is away")])
def test_readiness_depends_on_the_ledger(trouble: str, status: int, text: str) -> None:
    answer = make_health(lambda: trouble).ready()
    assert (answer.status_code, answer.get_data(as_text=True)) == (status, text)


def test_a_ledger_that_cannot_be_reached_is_a_reason_not_to_be_ready(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path}/no/such/folder.sqlite3", pool_size=1)
    answer = make_health(make_readiness_check(engine)).ready()
    assert (answer.status_code, answer.get_data(as_text=True)) == (503, "the ledger cannot be used")


def test_liveness_does_not_ask_the_ledger() -> None:
    asked = threading.Event()

    def find_trouble() -> str:
        asked.set()
        return ""

    answer = make_health(find_trouble).alive()
    assert (answer.status_code, answer.get_data(as_text=True)) == (200, "alive")
    assert not asked.is_set()


def test_a_draining_worker_is_not_ready_whatever_the_state_of_the_ledger() -> None:
    drain = Drain()
    health = make_health(lambda: "", drain=drain)
    drain.begin()
    assert (health.ready().status_code, health.ready().get_data(as_text=True)) == (503, "draining")
    assert health.alive().status_code == 200


def test_probes_share_one_check_of_a_hanging_ledger_and_are_ready_again_when_it_answers() -> None:
    asked: list[None] = []
    answers = threading.Event()

    def hang() -> str:
        asked.append(None)
        return "" if answers.wait(HANGS_AFTER_SECONDS) else "it hangs"

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
