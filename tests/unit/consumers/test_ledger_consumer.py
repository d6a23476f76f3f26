"""What becomes of messages: they are acknowledged, held, dead-lettered or released."""

import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest

from consumers.ledger import LedgerConsumer, Recorder
from service.config.settings import LedgerSettings
from service.ledger.errors import ClaimUnstorable, LedgerUnavailable
from service.messaging.errors import BrokerUnavailable, UndecodableMessage
from service.messaging.interface import Delivery, Message


def delivery(text: str) -> Delivery:
    message = Message(exchange="", routing_key="", body=text.encode(), message_id=text, type="test")
    return Delivery(message=message, previous_deliveries=0, handle=text)


def names(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.message.message_id for delivery in deliveries]


class ScriptedSubscriber:
    """Hands out prepared batches, then sets `stop`; writes down how each message was settled."""

    def __init__(self, *batches: Sequence[str], stop: threading.Event, steps: list[str]) -> None:
        self._batches = [[delivery(text) for text in batch] for batch in batches]
        self._stop = stop
        self._steps = steps
        self.asked_for: list[int] = []
        self.acknowledged: list[str] = []
        self.dead: dict[str, str] = {}
        self.released: list[str] = []
        self.closed = False
        self.dead_letters_refuse = 0
        #: Those that a lost connection took back.
        self.lost: set[str] = set()

    def receive(self, *, max_messages: int, wait_seconds: float) -> Sequence[Delivery]:
        self.asked_for.append(max_messages)
        if not self._batches:
            self._stop.set()
            return ()
        batch = self._batches.pop(0)
        assert len(batch) <= max_messages
        self._steps.append("received")
        return batch

    def holds(self, delivery: Delivery) -> bool:
        return delivery.message.message_id not in self.lost

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        self.acknowledged += names(deliveries)
        self._steps.append("acknowledged")

    def dead_letter(self, delivery: Delivery, *, reason: str) -> None:
        if self.dead_letters_refuse:
            self.dead_letters_refuse -= 1
            raise BrokerUnavailable("away")
        self.dead[delivery.message.message_id] = reason
        self._steps.append("dead letter published")

    def release(self, deliveries: Sequence[Delivery]) -> None:
        self.released += names(deliveries)

    def close(self) -> None:
        self.closed = True


class ScriptedRecorder(Recorder):
    """Records all but what `refuse` raises for."""

    def __init__(self, *, refuse: Callable[[Collection[str]], None], steps: list[str]) -> None:
        self._refuse = refuse
        self._steps = steps
        self.transactions = 0
        self.recorded: list[str] = []
        self.dead: list[str] = []

    def decode(self, message: Message) -> Any:
        if message.message_id.startswith("undecodable"):
            raise UndecodableMessage("no JSON")
        return message.message_id

    def record_dead_letter(self, message: Message, *, reason: str) -> None:
        self.dead.append(message.message_id)
        self._steps.append("dead letter recorded")

    def record(self, items: Sequence[Any]) -> None:
        self.transactions += 1
        self._refuse(items)
        self.recorded += items
        self._steps.append("committed")


def refuse_nothing(items: Collection[str]) -> None:
    pass


def refuse_poison(items: Collection[str]) -> None:
    if any(item.startswith("poison") for item in items):
        raise ClaimUnstorable("holds a NUL")


class Consumer:
    """A ledger consumer between a scripted subscriber and a scripted recorder."""

    def __init__(
        self,
        *batches: Sequence[str],
        refuse: Callable[[Collection[str]], None] = refuse_nothing,
        batch_size: int = 100,
    ) -> None:
        self.stop = threading.Event()
        self.steps: list[str] = []
        self.subscriber = ScriptedSubscriber(*batches, stop=self.stop, steps=self.steps)
        self.recorder = ScriptedRecorder(refuse=refuse, steps=self.steps)
        settings = LedgerSettings(batch_size=batch_size, initial_retry_seconds=0.001, max_retry_seconds=0.002)
        self.consumer = LedgerConsumer(
            subscriber=self.subscriber,
            recorder=self.recorder,
            settings=settings,
        )

    def run(self) -> None:
        self.consumer.run(self.stop)


def test_a_batch_is_committed_before_it_is_acknowledged() -> None:
    consumer = Consumer(["a", "b"])
    consumer.run()
    assert consumer.steps == ["received", "committed", "acknowledged"]
    assert consumer.subscriber.acknowledged == ["a", "b"]
    assert consumer.subscriber.closed


def test_one_poison_among_a_hundred_costs_few_transactions_and_harms_no_other() -> None:
    batch = [f"good-{number}" for number in range(99)]
    batch.insert(63, "poison")
    consumer = Consumer(batch, refuse=refuse_poison)
    consumer.run()
    assert consumer.subscriber.dead == {"poison": "ClaimUnstorable: holds a NUL"}
    others = [name for name in batch if name != "poison"]
    assert consumer.recorder.recorded == consumer.subscriber.acknowledged == others
    assert consumer.recorder.transactions <= 15


def test_the_order_of_a_batch_is_kept_when_it_is_run_by_halves() -> None:
    consumer = Consumer(["a", "b", "poison", "c", "d"], refuse=refuse_poison)
    consumer.run()
    assert consumer.recorder.recorded == ["a", "b", "c", "d"]


def test_a_batch_of_nothing_but_poison_goes_to_the_dead_letters() -> None:
    consumer = Consumer(["poison-1", "poison-2"], refuse=refuse_poison)
    consumer.run()
    assert set(consumer.subscriber.dead) == {"poison-1", "poison-2"}
    assert consumer.subscriber.released == []


def test_an_undecodable_message_goes_to_the_dead_letters_without_another_transaction() -> None:
    consumer = Consumer(["a", "undecodable", "b"])
    consumer.run()
    assert consumer.subscriber.dead == {"undecodable": "UndecodableMessage: no JSON"}
    assert consumer.recorder.recorded == ["a", "b"]
    assert consumer.recorder.transactions == 1


def test_a_batch_is_held_while_the_database_is_away_and_nothing_more_is_taken() -> None:
    failures = iter(range(3))

    def refuse(items: Collection[str]) -> None:
        if next(failures, None) is not None:
            raise LedgerUnavailable("away")

    consumer = Consumer(["a", "b"], refuse=refuse)
    consumer.run()
    assert consumer.steps == ["received", "committed", "acknowledged"]
    assert consumer.recorder.transactions == 4
    assert consumer.subscriber.dead == {}
    assert consumer.subscriber.released == []


def test_stopping_while_a_batch_is_held_gives_all_of_it_back() -> None:
    def refuse(items: Collection[str]) -> None:
        consumer.stop.set()
        raise LedgerUnavailable("away")

    consumer = Consumer(["a", "b"], refuse=refuse)
    consumer.run()
    assert consumer.subscriber.released == ["a", "b"]
    assert consumer.subscriber.acknowledged == []
    assert consumer.subscriber.closed


def test_a_batch_in_hand_is_finished_when_stopping() -> None:
    consumer = Consumer(["a", "b"], refuse=lambda items: consumer.stop.set())
    consumer.run()
    assert consumer.subscriber.acknowledged == ["a", "b"]
    assert consumer.subscriber.released == []


def test_poison_is_held_while_the_dead_letters_are_away() -> None:
    consumer = Consumer(["poison"], refuse=refuse_poison)
    consumer.subscriber.dead_letters_refuse = 3
    consumer.run()
    assert set(consumer.subscriber.dead) == {"poison"}


def fail_on(*bad: str) -> Callable[[Collection[str]], None]:
    def refuse(items: Collection[str]) -> None:
        if set(bad) & set(items):
            raise KeyError("card 6222021234561234")

    return refuse


def test_an_unexpected_error_of_one_message_among_others_puts_it_aside_without_personal_data() -> None:
    consumer = Consumer(["a", "odd", "b"], refuse=fail_on("odd"))
    consumer.run()
    assert consumer.subscriber.dead == {"odd": "KeyError: 'card 6222****1234'"}
    assert consumer.recorder.recorded == ["a", "b"]


def test_an_unexpected_error_of_a_lone_message_waits_for_another_to_prove_that_recording_works() -> None:
    consumer = Consumer(["odd"], ["a"], refuse=fail_on("odd"))
    consumer.run()
    assert set(consumer.subscriber.dead) == {"odd"}
    assert consumer.subscriber.acknowledged == ["a"]


def test_a_recorder_that_fails_for_every_message_buries_none() -> None:
    def refuse(items: Collection[str]) -> None:
        raise RuntimeError("broken")

    consumer = Consumer(["a", "b", "c"], ["d"], ["e", "f"], refuse=refuse)
    consumer.run()
    assert consumer.subscriber.dead == {}
    assert consumer.subscriber.acknowledged == []
    assert sorted(consumer.subscriber.released) == ["a", "b", "c", "d", "e", "f"]


def test_a_recorder_that_recovers_records_what_was_held() -> None:
    failures = iter(range(3))

    def refuse(items: Collection[str]) -> None:
        if next(failures, None) is not None:
            raise RuntimeError("broken")

    consumer = Consumer(["a", "b"], [], refuse=refuse)
    consumer.run()
    assert consumer.subscriber.dead == {}
    assert consumer.subscriber.acknowledged == ["a", "b"]


def test_nothing_more_is_taken_once_suspects_fill_a_batch() -> None:
    rounds = iter(range(6))

    def refuse(items: Collection[str]) -> None:
        if next(rounds, None) is None:
            consumer.stop.set()
        raise RuntimeError("broken")

    consumer = Consumer(["a", "b"], ["never taken"], refuse=refuse, batch_size=2)
    consumer.run()
    assert consumer.subscriber.asked_for == [2]
    assert consumer.subscriber.released == ["a", "b"]


def test_a_suspect_that_a_lost_connection_took_back_is_left_to_the_queue() -> None:
    consumer = Consumer(["odd"], ["a"], refuse=fail_on("odd"))
    consumer.subscriber.lost = {"odd"}
    consumer.run()
    assert consumer.subscriber.acknowledged == ["a"]
    assert consumer.subscriber.dead == {}
    assert consumer.subscriber.released == []


def test_suspects_that_fill_a_batch_are_tried_again_though_their_connection_was_lost() -> None:
    rounds = iter(range(6))

    def refuse(items: Collection[str]) -> None:
        if next(rounds, None) is not None:
            raise RuntimeError("broken")

    consumer = Consumer(["a", "b"], refuse=refuse, batch_size=2)
    consumer.subscriber.lost = {"a", "b"}
    consumer.run()
    assert consumer.subscriber.asked_for == [2, 2]
    assert consumer.recorder.recorded == ["a", "b"]


def test_the_subscriber_is_closed_when_the_consumer_itself_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = Consumer(["a"])

    def broken(deliveries: Sequence[Delivery]) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(consumer.subscriber, "acknowledge", broken)
    with pytest.raises(ZeroDivisionError):
        consumer.run()
    assert consumer.subscriber.closed


def test_a_dead_letter_is_recorded_before_it_is_published() -> None:
    consumer = Consumer(["undecodable", "a"])
    consumer.subscriber.dead_letters_refuse = 1
    consumer.run()
    assert consumer.recorder.dead == ["undecodable"]
    assert list(consumer.subscriber.dead) == ["undecodable"]
    assert consumer.steps[-2:] == ["dead letter recorded", "dead letter published"]
