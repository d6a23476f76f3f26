from typing import Any


def test_a_worker_is_alive_and_ready(receiver: Any) -> None:
    assert receiver.client.get("/healthz").status_code == 200
    assert receiver.client.get("/readyz").status_code == 200


def test_a_draining_worker_is_alive_and_not_ready(receiver: Any) -> None:
    receiver.health.drain()
    assert receiver.client.get("/healthz").status_code == 200
    assert receiver.client.get("/readyz").status_code == 503


def test_a_broker_that_is_away_leaves_the_worker_ready(unconfirmed: Any) -> None:
    unconfirmed.client.post("/notify/by-query", data=b"{}")
    assert unconfirmed.client.get("/readyz").status_code == 200
