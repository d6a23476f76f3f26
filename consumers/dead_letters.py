"""Keeps the ledger's rows of dead letters equal to the queue's, and carries out what people ask for."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta

from consumers.threads import repeated
from service.ledger.dead_letters import DeadLetterAction, DeadLetterRecord, DeadLetterStore
from service.messaging.contract import DeadLetters, Message, dead_letter_id
from service.runtime.logs import Logger

#: How many letters are compared at most: each is fetched from the queue and returned.
MOST_COMPARED = 1000
_EVERY_SECONDS = 15.0
# A letter is recorded before it is published: until then its row has no letter.
_BEING_PUBLISHED = timedelta(minutes=2)

_log = Logger(__name__)


class DeadLetterKeeper:
    """Does its work at intervals, on a thread of its own. Any number of processes may have one each."""

    def __init__(
        self,
        *,
        letters: DeadLetters,
        count: Callable[[], Mapping[str, int]],
        store: DeadLetterStore,
        clock: Callable[[], datetime],
    ) -> None:
        """`count` gives the number of messages by queue, that of the dead letters under `dead`."""
        self._letters = letters
        self._count = count
        self._store = store
        self._clock = clock
        #: Letters that were recorded and not found when the last round compared.
        self._absent: frozenset[str] = frozenset()

    def running(self) -> AbstractContextManager[None]:
        """Keep them while the `with` lasts. What is under way at its end is not waited for."""
        return repeated(
            lambda _over: self.keep(),
            name="dead-letters",
            every_seconds=_EVERY_SECONDS,
            failure="dead_letters_not_kept",
        )

    def keep(self) -> None:
        """Do it once. Raises LedgerUnavailable and MessagingError."""
        self._carry_out()
        self._compare()

    def _carry_out(self) -> None:
        actions: Mapping[DeadLetterAction | None, tuple[Callable[[Sequence[str]], int], str]] = {
            DeadLetterAction.REPLAY: (self._letters.replay, "replayed"),
            DeadLetterAction.DROP: (self._letters.drop, "dropped"),
        }
        for letter in self._store.load_requested():
            do, done = actions[letter.requested]
            if not do([letter.id]):  # another process is looking at it, or it is gone, which the comparison finds out
                continue
            self._store.settle({letter.id: done})
            _log.info(
                "dead_letter_settled",
                message_id=letter.id,
                action=letter.requested,
                by=letter.requested_by,
                reason=letter.requested_reason,
            )

    def _compare(self) -> None:
        """Record letters that the broker made, and settle rows whose letters somebody has taken from the queue."""
        depth = self._count().get("dead", 0)
        if depth > MOST_COMPARED:
            self._absent = frozenset()
            return
        known = {letter.id: letter for letter in self._store.load_open()}
        if depth == len(known):
            self._absent = frozenset()
            return
        present = {letter.id: letter for letter in self._letters.list(limit=MOST_COMPARED)}
        if missing := [
            make_record(letter.message, reason=letter.reason, died_at=letter.died_at)
            for name, letter in present.items()
            if name not in known
        ]:
            self._store.record(missing)
        old = self._clock() - _BEING_PUBLISHED
        absent = frozenset(name for name, letter in known.items() if name not in present and letter.died_at < old)
        # Twice in a row: while another process looks at the letters, they are not seen here.
        self._store.settle(dict.fromkeys(absent & self._absent, "taken from the queue by other means"))
        self._absent = absent


def make_record(message: Message, *, reason: str, died_at: datetime) -> DeadLetterRecord:
    """A dead letter as the ledger records it."""
    body = message.body.decode("utf-8", errors="backslashreplace")
    return DeadLetterRecord(id=dead_letter_id(message), reason=reason, died_at=died_at, body=body)
