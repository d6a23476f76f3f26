"""Dead letters in the ledger: what the keeper records, carries out and settles, on both foundations."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from consumers.dead_letters import DeadLetterKeeper, make_record
from service.bootstrap.messaging import make_message_counter
from service.config.reading import parse_settings
from service.config.settings import Settings
from service.ledger.attention import AttentionFilter, AttentionKind, AttentionList
from service.ledger.audit import list_changes
from service.ledger.dead_letters import DeadLetterAction, DeadLetterStore
from service.ledger.errors import DeadLetterUnknown
from service.ledger.tables import dead_letters
from service.messaging.interface import DeadLetters, Subscriber
from service.messaging.rabbitmq.dead_letters import RabbitDeadLetters, as_dead_letter
from service.messaging.rabbitmq.session import BrokerSession
from service.messaging.rabbitmq.topology import DEAD_LETTERS
from service.messaging.sqlite.dead_letters import EmbeddedDeadLetters
from service.messaging.sqlite.queue import EmbeddedQueue, EmbeddedSubscriber
from service.runtime.clock import now
from tests.support.claims import AUTHOR
from tests.support.messages import Connect, Subscribe, count_messages, embedded_publisher, make_message
from tests.support.waiting import eventually

_SETTINGS = """
[merchants.acme]
pay_types = ["bank"]
amount_unit = "yuan"
"""

MakeKeeper = Callable[..., DeadLetterKeeper]


class Queue:
    """The callbacks' queue that the settings name."""

    def __init__(self, settings: Settings, *, connect: Connect, subscribe: Subscribe) -> None:
        self._url = settings.broker.urls[0].reveal() if settings.broker.urls else ""
        self._file = settings.data_directory / "callbacks.sqlite3"
        self._connect = connect
        self._subscribe = subscribe

    def put_aside(self, *ids: str) -> None:
        """Put messages into the dead letters of which the ledger does not know."""
        reason = "UndecodableMessage: card 6222021234561236"
        if self._url:
            publisher = self._connect(self._url)
            for message_id in ids:
                letter = as_dead_letter(make_message(message_id), reason=reason, died_at=now())
                publisher.publish(letter, timeout_seconds=10)
            return
        publisher = embedded_publisher(EmbeddedQueue(path=self._file))
        for message_id in ids:
            publisher.publish(make_message(message_id), timeout_seconds=10)
        publisher.close(timeout_seconds=5)
        for _ in ids:
            self.put_next_aside(reason=reason)

    def put_next_aside(self, *, reason: str) -> None:
        """Take the next message from the queue, and make it a dead letter."""
        subscriber: Subscriber = (
            self._subscribe(self._url) if self._url else EmbeddedSubscriber(queue=EmbeddedQueue(path=self._file))
        )
        with closing(subscriber):
            (delivery,) = eventually(lambda: subscriber.receive(max_messages=1, wait_seconds=10))
            subscriber.dead_letter(delivery, reason=reason)

    def depth(self) -> int:
        """How many messages wait for the ledger."""
        if self._url:
            return count_messages(self._url)
        queue = EmbeddedQueue(path=self._file)
        try:
            return queue.depth().messages
        finally:
            queue.close(timeout_seconds=5)


@pytest.fixture
def settings(ledger_engine: Engine, request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """With RabbitMQ beside PostgreSQL, and with the embedded queue beside SQLite."""
    broker = ""
    if ledger_engine.dialect.name == "postgresql":
        broker = f'[broker]\nurls = ["{request.getfixturevalue("declared_url")}"]\n'
    settings = parse_settings(broker + _SETTINGS, {}, name="test", folder=tmp_path)
    settings.data_directory.mkdir(parents=True, exist_ok=True)
    return settings


@pytest.fixture
def queue(settings: Settings, connect: Connect, subscribe: Subscribe) -> Queue:
    return Queue(settings, connect=connect, subscribe=subscribe)


@pytest.fixture
def store(ledger_engine: Engine) -> DeadLetterStore:
    return DeadLetterStore(engine=ledger_engine)


@pytest.fixture
def embedded_queue(settings: Settings) -> Iterator[EmbeddedQueue]:
    queue = EmbeddedQueue(path=settings.data_directory / "callbacks.sqlite3")
    yield queue
    queue.close(timeout_seconds=5)


@pytest.fixture
def letters(settings: Settings, connect: Connect, embedded_queue: EmbeddedQueue) -> DeadLetters:
    if not settings.broker.urls:
        return EmbeddedDeadLetters(queue=embedded_queue)
    url = settings.broker.urls[0].reveal()
    return RabbitDeadLetters(urls=[url], publisher=connect(url))


@pytest.fixture
def make_keeper(settings: Settings, store: DeadLetterStore, letters: DeadLetters) -> MakeKeeper:
    """Makes a keeper that compares in each round, at a time when no letter is being published."""

    def make(*, clock: Callable[[], datetime] = lambda: now() + timedelta(hours=1)) -> DeadLetterKeeper:
        count = make_message_counter(settings)
        return DeadLetterKeeper(letters=letters, count=count, store=store, clock=clock, compare_seconds=0)

    return make


@pytest.fixture
def keeper(make_keeper: MakeKeeper) -> DeadLetterKeeper:
    return make_keeper()


def outcomes(engine: Engine) -> dict[str, str]:
    with engine.connect() as connection:
        rows = connection.execute(select(dead_letters.c.id, dead_letters.c.outcome))
        return {row.id: row.outcome for row in rows}


def test_a_letter_that_nobody_recorded_is_listed_with_its_reason_masked(
    queue: Queue, keeper: DeadLetterKeeper, ledger_engine: Engine
) -> None:
    queue.put_aside("m1", "m2")
    keeper.keep()
    items = AttentionList(engine=ledger_engine).list(AttentionFilter(kind=AttentionKind.DEAD_LETTER), limit=10)
    assert [item.id for item in items] == ["dead-letter/m1", "dead-letter/m2"]
    assert items[0].detail == "UndecodableMessage: card 6222****1236"
    assert items[0].next_step == "payment-callbacks dead show m1"


@pytest.mark.parametrize(
    ("action", "outcome", "left"), [(DeadLetterAction.REPLAY, "replayed", 2), (DeadLetterAction.DROP, "dropped", 0)]
)
def test_a_request_is_carried_out_and_audited(
    queue: Queue,
    keeper: DeadLetterKeeper,
    store: DeadLetterStore,
    letters: DeadLetters,
    ledger_engine: Engine,
    action: DeadLetterAction,
    outcome: str,
    left: int,
) -> None:
    queue.put_aside("m1", "m2", "m3")
    keeper.keep()
    store.request(["m1", "m3"], action, author=AUTHOR)
    assert [letter.requested_by for letter in store.load_open()] == ["Li Lei", "", "Li Lei"]
    keeper.keep()
    assert [letter.id for letter in letters.list(limit=10)] == ["m2"]
    assert queue.depth() == left
    assert outcomes(ledger_engine) == {"m1": outcome, "m2": "", "m3": outcome}
    (change,) = list_changes(ledger_engine, limit=10)
    assert (change.action, change.subject) == (f"{action}-dead-letters", "m1, m3")
    assert (change.changed_by, change.reason) == (AUTHOR.name, AUTHOR.reason)


def test_nothing_is_requested_where_one_id_is_no_dead_letter(
    queue: Queue, keeper: DeadLetterKeeper, store: DeadLetterStore, ledger_engine: Engine
) -> None:
    queue.put_aside("m1")
    keeper.keep()
    with pytest.raises(DeadLetterUnknown, match="m404"):
        store.request(["m1", "m404"], DeadLetterAction.DROP, author=AUTHOR)
    assert [letter.requested for letter in store.load_open()] == [None]
    assert list_changes(ledger_engine, limit=10) == []


def test_a_letter_that_somebody_took_from_the_queue_is_settled_once_it_is_missed_twice(
    queue: Queue, keeper: DeadLetterKeeper, store: DeadLetterStore, letters: DeadLetters, ledger_engine: Engine
) -> None:
    queue.put_aside("m1")
    keeper.keep()
    letters.drop(["m1"])
    # As many letters as rows: only their names differ.
    queue.put_aside("m2")
    keeper.keep()
    assert [letter.id for letter in store.load_open()] == ["m1", "m2"]
    keeper.keep()
    assert outcomes(ledger_engine) == {"m1": "taken from the queue by other means", "m2": ""}


def test_a_request_for_a_letter_that_is_gone_ends_like_that_too(
    queue: Queue, keeper: DeadLetterKeeper, store: DeadLetterStore, letters: DeadLetters, ledger_engine: Engine
) -> None:
    queue.put_aside("m1")
    keeper.keep()
    letters.drop(["m1"])
    store.request(["m1"], DeadLetterAction.REPLAY, author=AUTHOR)
    keeper.keep()
    keeper.keep()
    assert outcomes(ledger_engine) == {"m1": "taken from the queue by other means"}
    assert queue.depth() == 0


def test_a_letter_that_is_recorded_and_not_yet_published_stays(make_keeper: MakeKeeper, store: DeadLetterStore) -> None:
    keeper = make_keeper(clock=now)
    store.record([make_record(make_message("m1"), reason="bad", died_at=now())])
    for _ in range(3):
        keeper.keep()
    assert [letter.id for letter in store.load_open()] == ["m1"]


def test_a_replayed_letter_that_dies_again_waits_again(
    queue: Queue, keeper: DeadLetterKeeper, store: DeadLetterStore
) -> None:
    queue.put_aside("m1")
    keeper.keep()
    store.request(["m1"], DeadLetterAction.REPLAY, author=AUTHOR)
    keeper.keep()
    assert store.load_open() == []
    queue.put_next_aside(reason="still bad")
    keeper.keep()
    assert [(letter.id, letter.reason, letter.requested) for letter in store.load_open()] == [("m1", "still bad", None)]


def test_a_letter_that_died_again_before_its_replay_was_noted_is_not_settled(store: DeadLetterStore) -> None:
    store.record([make_record(make_message("m1"), reason="bad", died_at=now())])
    store.request(["m1"], DeadLetterAction.REPLAY, author=AUTHOR)
    replayed = store.load_requested()
    store.record([make_record(make_message("m1"), reason="still bad", died_at=now() + timedelta(seconds=1))])
    store.settle(replayed, outcome="replayed")
    assert [(letter.reason, letter.outcome) for letter in store.load_open()] == [("still bad", "")]


def test_nothing_is_done_while_another_process_reads_the_queue(
    queue: Queue, keeper: DeadLetterKeeper, store: DeadLetterStore
) -> None:
    queue.put_aside("m1")
    lease = store.lease_queue(seconds=600)
    assert lease is not None
    keeper.keep()
    assert store.load_open() == []
    store.release_queue(lease)
    keeper.keep()
    assert [letter.id for letter in store.load_open()] == ["m1"]


def test_the_lease_of_a_process_that_died_runs_out(ledger_engine: Engine) -> None:
    times = iter(now() + timedelta(seconds=seconds) for seconds in (0, 59, 60, 61))
    store = DeadLetterStore(engine=ledger_engine, clock=lambda _: next(times))
    first = store.lease_queue(seconds=60)
    assert first is not None
    assert store.lease_queue(seconds=60) is None
    assert store.lease_queue(seconds=60) is not None
    store.release_queue(first)  # it comes too late, and ends no other lease
    assert DeadLetterStore(engine=ledger_engine).lease_queue(seconds=60) is None


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_letters_that_another_process_has_fetched_are_not_taken_for_gone(
    declared_url: str, queue: Queue, keeper: DeadLetterKeeper, store: DeadLetterStore, ledger_engine: Engine
) -> None:
    queue.put_aside("m1", "m2")
    keeper.keep()
    assert store.lease_queue(seconds=600)
    with BrokerSession(urls=[declared_url], connection_name="another", timeout_seconds=60) as another:
        assert another.fetch(DEAD_LETTERS) is not None
        assert another.fetch(DEAD_LETTERS) is not None
        for _ in range(3):
            keeper.keep()
    assert outcomes(ledger_engine) == {"m1": "", "m2": ""}
