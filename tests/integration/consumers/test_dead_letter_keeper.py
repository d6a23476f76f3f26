"""Dead letters in the ledger: what the keeper records, carries out and settles, on a real queue."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from consumers.dead_letters import DeadLetterKeeper, make_record
from service.ledger.attention import AttentionFilter, AttentionKind, AttentionList
from service.ledger.dead_letters import DeadLetterAction, DeadLetterStore
from service.ledger.errors import DeadLetterUnknown
from service.ledger.tables import dead_letters
from service.messaging.sqlite.dead_letters import EmbeddedDeadLetters
from service.messaging.sqlite.queue import EmbeddedQueue, EmbeddedSubscriber
from service.runtime.clock import now
from tests.support.messages import embedded_publisher, make_message


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[EmbeddedQueue]:
    queue = EmbeddedQueue(path=tmp_path / "callbacks.sqlite3")
    yield queue
    queue.close(timeout_seconds=5)


@pytest.fixture
def store(ledger_engine: Engine) -> DeadLetterStore:
    return DeadLetterStore(engine=ledger_engine)


@pytest.fixture
def letters(queue: EmbeddedQueue) -> EmbeddedDeadLetters:
    return EmbeddedDeadLetters(queue=queue)


@pytest.fixture
def keeper(queue: EmbeddedQueue, store: DeadLetterStore, letters: EmbeddedDeadLetters) -> DeadLetterKeeper:
    return DeadLetterKeeper(
        letters=letters,
        count=queue.count_messages,
        store=store,
        clock=lambda: now() + timedelta(hours=1),  # no letter is being published
    )


def put_aside(queue: EmbeddedQueue, *ids: str) -> None:
    publisher = embedded_publisher(queue)
    subscriber = EmbeddedSubscriber(queue=queue)
    for message_id in ids:
        publisher.publish(make_message(message_id), timeout_seconds=5)
        (delivery,) = subscriber.receive(max_messages=1, wait_seconds=5)
        subscriber.dead_letter(delivery, reason="UndecodableMessage: card 6222021234561236")


def outcomes(engine: Engine) -> dict[str, str]:
    with engine.connect() as connection:
        rows = connection.execute(select(dead_letters.c.id, dead_letters.c.outcome))
        return {row.id: row.outcome for row in rows}


def test_a_letter_that_nobody_recorded_is_listed_with_its_reason_masked(
    queue: EmbeddedQueue, keeper: DeadLetterKeeper, ledger_engine: Engine
) -> None:
    put_aside(queue, "m1", "m2")
    keeper.keep()
    items = AttentionList(engine=ledger_engine).list(AttentionFilter(kind=AttentionKind.DEAD_LETTER), limit=10)
    assert [item.id for item in items] == ["dead-letter/m1", "dead-letter/m2"]
    assert items[0].detail == "UndecodableMessage: card 6222****1236"
    assert items[0].next_step == "payment-callbacks dead show m1"


@pytest.mark.parametrize(
    ("action", "outcome", "left"), [(DeadLetterAction.REPLAY, "replayed", 1), (DeadLetterAction.DROP, "dropped", 0)]
)
def test_a_request_is_carried_out_and_kept_with_its_author(
    queue: EmbeddedQueue,
    keeper: DeadLetterKeeper,
    store: DeadLetterStore,
    letters: EmbeddedDeadLetters,
    ledger_engine: Engine,
    action: DeadLetterAction,
    outcome: str,
    left: int,
) -> None:
    put_aside(queue, "m1", "m2")
    keeper.keep()
    store.request(["m1"], action, by="Li", reason="the cause is mended")
    assert [letter.requested_by for letter in store.load_open()] == ["Li", ""]
    keeper.keep()
    assert [letter.id for letter in letters.list(limit=10)] == ["m2"]
    assert queue.depth().messages == left
    assert outcomes(ledger_engine) == {"m1": outcome, "m2": ""}


def test_nothing_is_requested_where_one_id_is_no_dead_letter(
    queue: EmbeddedQueue, keeper: DeadLetterKeeper, store: DeadLetterStore
) -> None:
    put_aside(queue, "m1")
    keeper.keep()
    with pytest.raises(DeadLetterUnknown):
        store.request(["m1", "m404"], DeadLetterAction.DROP, by="Li", reason="?")
    assert [letter.requested for letter in store.load_open()] == [None]


def test_a_letter_that_somebody_took_from_the_queue_is_settled_once_it_is_missed_twice(
    queue: EmbeddedQueue,
    keeper: DeadLetterKeeper,
    store: DeadLetterStore,
    letters: EmbeddedDeadLetters,
    ledger_engine: Engine,
) -> None:
    put_aside(queue, "m1")
    keeper.keep()
    letters.drop(["m1"])
    keeper.keep()
    assert [letter.id for letter in store.load_open()] == ["m1"]
    keeper.keep()
    assert store.load_open() == []
    assert outcomes(ledger_engine) == {"m1": "taken from the queue by other means"}


def test_a_letter_that_is_recorded_and_not_yet_published_stays(store: DeadLetterStore, queue: EmbeddedQueue) -> None:
    keeper = DeadLetterKeeper(
        letters=EmbeddedDeadLetters(queue=queue), count=queue.count_messages, store=store, clock=now
    )
    store.record([make_record(make_message("m1"), reason="bad", died_at=now())])
    for _ in range(3):
        keeper.keep()
    assert [letter.id for letter in store.load_open()] == ["m1"]


def test_a_replayed_letter_that_dies_again_waits_again(
    queue: EmbeddedQueue, keeper: DeadLetterKeeper, store: DeadLetterStore
) -> None:
    put_aside(queue, "m1")
    keeper.keep()
    store.request(["m1"], DeadLetterAction.REPLAY, by="Li", reason="mended")
    keeper.keep()
    assert store.load_open() == []
    subscriber = EmbeddedSubscriber(queue=queue)
    (delivery,) = subscriber.receive(max_messages=1, wait_seconds=5)
    subscriber.dead_letter(delivery, reason="still bad")
    keeper.keep()
    assert [(letter.id, letter.reason, letter.requested) for letter in store.load_open()] == [("m1", "still bad", None)]
