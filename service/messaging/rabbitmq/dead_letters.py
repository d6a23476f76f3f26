"""Dead letters on RabbitMQ: listing, replaying and dropping them without losing any."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from service.messaging.errors import MessagingError
from service.messaging.interface import DeadLetter, Message, Publisher, dead_letter_id
from service.messaging.rabbitmq.session import BrokerSession, Fetched
from service.messaging.rabbitmq.topology import CALLBACKS_EXCHANGE, DEAD_LETTERS

#: Why it was dead-lettered.
REASON_HEADER = "dead-reason"
#: The type it had, for people who look at the queue with other tools.
ORIGINAL_TYPE_HEADER = "dead-original-type"
#: ISO 8601: when it was first dead-lettered; kept when it is replayed.
FIRST_SEEN_HEADER = "dead-first-seen"
#: ISO 8601: when it was dead-lettered.
DIED_AT_HEADER = "dead-died-at"

_OUR_HEADERS = frozenset({REASON_HEADER, ORIGINAL_TYPE_HEADER, DIED_AT_HEADER})
# In characters. The broker refuses a message whose headers do not fit into one frame (128 KiB).
_MAX_REASON = 1_000
_PUBLISH_SECONDS = 5.0


def as_dead_letter(message: Message, *, reason: str, died_at: datetime) -> Message:
    """The message with headers that say why and since when it is a dead letter."""
    moment = died_at.isoformat()
    headers = {
        FIRST_SEEN_HEADER: moment,
        **message.headers,
        # A reason may quote what came in, and a lone surrogate cannot be sent.
        REASON_HEADER: reason[:_MAX_REASON].encode(errors="backslashreplace").decode(),
        ORIGINAL_TYPE_HEADER: message.type,
        DIED_AT_HEADER: moment,
    }
    return replace(message, exchange=DEAD_LETTERS, headers=headers)


def as_replayed(message: Message) -> Message:
    """The message as it is published to the callbacks' queue again."""
    headers = {name: value for name, value in message.headers.items() if name not in _OUR_HEADERS}
    return replace(message, exchange=CALLBACKS_EXCHANGE, headers=headers)


class RabbitDeadLetters:
    """The dead letters' queue; see `DeadLetters`. Each call is one session with the broker.

    Whatever a call fetches and does not settle is back in the queue when it returns. A call raises `BrokerUnavailable`
    after `timeout_seconds`; everything stays in the queue then. `publisher` publishes replayed messages; its owner
    closes it.
    """

    def __init__(self, *, urls: Sequence[str], publisher: Publisher, timeout_seconds: float = 60.0) -> None:
        self._urls = urls
        self._publisher = publisher
        self._timeout_seconds = timeout_seconds

    def list(self, *, limit: int) -> Sequence[DeadLetter]:
        """Up to `limit`, oldest first; all of them return to their places."""
        with self._session() as session:
            letters = [_letter(fetched) for fetched in islice(_walk(session), limit)]
            session.give_back(DEAD_LETTERS, messages=len(letters))
        return letters

    def replay(self, ids: Collection[str]) -> Collection[str]:
        """Publish the named ones again, and drop each once confirmed. Ends at the first failure."""
        return self._settle(
            ids, lambda letter: self._publisher.publish(as_replayed(letter.message), timeout_seconds=_PUBLISH_SECONDS)
        )

    def drop(self, ids: Collection[str]) -> Collection[str]:
        """Delete the named ones for good."""
        return self._settle(ids, lambda _letter: None)

    def _settle(self, ids: Collection[str], settle: Callable[[DeadLetter], None]) -> Collection[str]:
        wanted, settled, passed_over = set(ids), set[str](), 0
        with self._session() as session:
            try:
                for fetched in _walk(session):
                    letter = _letter(fetched)
                    if letter.id in wanted:
                        settle(letter)
                        session.acknowledge(fetched)
                        settled.add(letter.id)
                    else:
                        passed_over += 1
                session.give_back(DEAD_LETTERS, messages=passed_over)
            except MessagingError:
                if not settled:  # else the next call meets the error, if it is still there
                    raise
        return settled

    def _session(self) -> BrokerSession:
        return BrokerSession(urls=self._urls, connection_name="dead-letters", timeout_seconds=self._timeout_seconds)


def _walk(session: BrokerSession) -> Iterator[Fetched]:
    """Each message that is there now, once. They stay unacknowledged."""
    for _ in range(session.count(DEAD_LETTERS)):
        fetched = session.fetch(DEAD_LETTERS)
        if fetched is None:
            return
        yield fetched


def _letter(fetched: Fetched) -> DeadLetter:
    message = fetched.message
    if REASON_HEADER in message.headers:
        reason, died_at = message.headers[REASON_HEADER], _moment(message.headers.get(DIED_AT_HEADER, ""))
    else:
        reason, died_at = _parse_death(fetched.raw_headers.get("x-death"))
    return DeadLetter(id=dead_letter_id(message), message=message, reason=reason, died_at=died_at)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)  # somebody else's header: the letter still has to be listed
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _parse_death(deaths: Any) -> tuple[str, datetime]:
    """Reason and time in the `x-death` header of a message that the broker itself dead-lettered."""
    death = deaths[0] if isinstance(deaths, list) and deaths else {}
    reason = {"delivery_limit": "handed out too often without being settled"}.get(
        str(death.get("reason")), f"the broker put it aside: {death.get('reason', 'no reason given')}"
    )
    at = death.get("time")
    if not isinstance(at, datetime):
        return reason, datetime.fromtimestamp(0, UTC)
    return reason, at.replace(tzinfo=UTC) if at.tzinfo is None else at
