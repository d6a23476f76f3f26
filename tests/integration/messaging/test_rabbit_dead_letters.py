from dataclasses import replace
from datetime import UTC, datetime

import pytest

from service.messaging.blocking_publisher import BlockingPublisher
from service.messaging.errors import BrokerUnavailable, ConfirmTimeout
from service.messaging.interface import Message
from service.messaging.rabbitmq.dead_letters import FIRST_SEEN_HEADER, RabbitDeadLetters, as_dead_letter
from service.messaging.rabbitmq.topology import DEAD_LETTERS
from tests.support.messages import Connect, count_messages, make_message
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

_MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def five(connect: Connect, declared_url: str) -> str:
    """A broker with five dead letters, `m0` to `m4`."""
    publisher = connect(declared_url)
    for number in range(5):
        letter = as_dead_letter(make_message(f"m{number}"), reason=f"reason {number}", died_at=_MOMENT)
        publisher.publish(letter, timeout_seconds=HANGS_AFTER_SECONDS)
    return declared_url


def _dead_letters(url: str, publisher: BlockingPublisher) -> RabbitDeadLetters:
    return RabbitDeadLetters(urls=[url], publisher=publisher)


def test_listing_shows_the_oldest_first_and_leaves_all_in_place(connect: Connect, five: str) -> None:
    dead_letters = _dead_letters(five, connect(five))

    for _ in range(25):  # without a limit of its own, a queue of RabbitMQ 4 drops a letter after 20
        letters = dead_letters.list(limit=3)
        assert [(letter.id, letter.reason, letter.died_at) for letter in letters] == [
            (f"m{number}", f"reason {number}", _MOMENT) for number in range(3)
        ]
        assert count_messages(five, DEAD_LETTERS) == 5


def test_replaying_moves_just_the_named_ones_back(connect: Connect, five: str) -> None:
    dead_letters = _dead_letters(five, connect(five))

    assert dead_letters.replay(["m1", "m3", "unknown"]) == {"m1", "m3"}

    assert [letter.id for letter in dead_letters.list(limit=10)] == ["m0", "m2", "m4"]
    eventually(lambda: count_messages(five) == 2)


def test_what_one_call_has_fetched_is_there_for_the_next(connect: Connect, five: str) -> None:
    dead_letters = _dead_letters(five, connect(five))
    for number in range(4):
        assert len(dead_letters.list(limit=10)) == 5 - number
        assert dead_letters.drop([f"m{4 - number}"]) == {f"m{4 - number}"}


def test_a_replay_that_fails_midway_names_what_was_done(connect: Connect, five: str) -> None:
    inner = connect(five)

    class FailsAtTheSecond:
        def __init__(self) -> None:
            self.published: list[str] = []

        def publish(self, message: Message, *, timeout_seconds: float) -> None:
            if self.published:
                raise ConfirmTimeout("the broker is slow")
            inner.publish(message, timeout_seconds=timeout_seconds)
            self.published.append(message.message_id)

        def close(self, *, timeout_seconds: float) -> None: ...

    dead_letters = RabbitDeadLetters(urls=[five], publisher=FailsAtTheSecond())
    assert dead_letters.replay(["m1", "m3"]) == {"m1"}
    eventually(lambda: [letter.id for letter in dead_letters.list(limit=10)] == ["m0", "m2", "m3", "m4"])
    eventually(lambda: count_messages(five) == 1)


def test_a_letter_whose_id_cannot_be_typed_has_a_name(connect: Connect, five: str) -> None:
    publisher = connect(five)
    strange = replace(make_message("m5"), message_id="\x1b[2J")
    publisher.publish(as_dead_letter(strange, reason="strange", died_at=_MOMENT), timeout_seconds=5)
    dead_letters = _dead_letters(five, publisher)
    name = dead_letters.list(limit=10)[-1].id
    assert name.startswith("sha256-")
    assert dead_letters.drop([name]) == {name}


def test_a_replayed_message_remembers_when_it_was_first_seen(connect: Connect, five: str) -> None:
    received: list[Message] = []

    class Recorder:
        def publish(self, message: Message, *, timeout_seconds: float) -> None:
            received.append(message)

        def close(self, *, timeout_seconds: float) -> None: ...

    RabbitDeadLetters(urls=[five], publisher=Recorder()).replay(["m0"])

    original = make_message("m0")
    assert received == [
        Message(
            exchange=original.exchange,
            routing_key=original.routing_key,
            body=original.body,
            message_id="m0",
            type=original.type,
            headers={**original.headers, FIRST_SEEN_HEADER: _MOMENT.isoformat()},
        )
    ]


def test_a_replay_that_is_not_confirmed_loses_nothing(connect: Connect, five: str, free_port: int) -> None:
    away = connect(f"amqp://127.0.0.1:{free_port}/")

    with pytest.raises(BrokerUnavailable):
        _dead_letters(five, away).replay(["m1"])

    eventually(lambda: count_messages(five, DEAD_LETTERS) == 5)


def test_dropping_deletes_just_the_named_ones(connect: Connect, five: str) -> None:
    dead_letters = _dead_letters(five, connect(five))

    assert dead_letters.drop(["m0", "m4"]) == {"m0", "m4"}

    assert [letter.id for letter in dead_letters.list(limit=10)] == ["m1", "m2", "m3"]
