"""Keeps the ledger's rows of dead letters equal to the queue's, and carries out what people ask for."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta

from consumers.threads import repeated
from service.ledger.dead_letters import DeadLetterAction, DeadLetterRecord, DeadLetterStore
from service.messaging.interface import DeadLetters, Message, dead_letter_id
from service.runtime.logs import Logger

#: How many letters are compared at most: each is fetched from the queue and returned.
MAX_COMPARED = 1000
# How soon a request is noticed. A round that finds nothing reads one index that is nearly always empty.
_EVERY_SECONDS = 1.0
_COMPARE_SECONDS = 15.0
# Longer than the sessions of one round with the broker may take.
_LEASE_SECONDS = 240.0
# A letter is recorded before it is published: until then its row has no letter.
_BEING_PUBLISHED = timedelta(minutes=2)

_log = Logger(__name__)


class DeadLetterKeeper:
    """Does its work at intervals, on a thread of its own. Any number of processes may have one each.

    Only one of them at a time reads the queue. On RabbitMQ, a letter that one process has fetched is hidden from the
    others until it is returned, so another one would take it for gone.
    """

    def __init__(
        self,
        *,
        letters: DeadLetters,
        count: Callable[[], Mapping[str, int]],
        store: DeadLetterStore,
        clock: Callable[[], datetime],
        compare_seconds: float = _COMPARE_SECONDS,
    ) -> None:
        """`count` gives the number of messages by queue, that of the dead letters under `dead`."""
        self._letters = letters
        self._count = count
        self._store = store
        self._clock = clock
        self._compare_seconds = compare_seconds
        self._compare_at = time.monotonic()
        #: The number of letters and the rows of the last comparison, if both were equal.
        self._equal: object = None
        #: Letters that were recorded and not found when the last round compared.
        self._absent: frozenset[str] = frozenset()

    def running(self) -> AbstractContextManager[None]:
        """Keep them while the `with` lasts. What is under way at its end is not waited for."""
        return repeated(
            lambda _over: self.keep(),
            name="dead-letters",
            every_seconds=_EVERY_SECONDS,
            failure="dead_letter_sync_failed",
        )

    def keep(self) -> None:
        """Carry out what was requested, and compare if it is time. Raises LedgerUnavailable and MessagingError.

        Does nothing while another process is at it.
        """
        if not self._store.load_requested() and time.monotonic() < self._compare_at:
            return
        until = self._store.lease_queue(seconds=_LEASE_SECONDS)
        if until is None:
            return
        try:
            self._carry_out()
            if time.monotonic() >= self._compare_at:
                self._compare()
                self._compare_at = time.monotonic() + self._compare_seconds
        finally:
            self._store.release_queue(until)

    def _carry_out(self) -> None:
        actions: Mapping[DeadLetterAction, tuple[Callable[[Collection[str]], Collection[str]], str]] = {
            DeadLetterAction.REPLAY: (self._letters.replay, "replayed"),
            DeadLetterAction.DROP: (self._letters.drop, "dropped"),
        }
        requested = self._store.load_requested()
        for action, (do, outcome) in actions.items():
            wanted = {letter.id: letter for letter in requested if letter.requested is action}
            # One that is not found is gone, or about to be published. The comparison finds out.
            found = do(wanted) if wanted else ()
            settled = [wanted[name] for name in found]
            self._store.settle(settled, outcome=outcome)
            for letter in settled:
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
        state = (depth, _name(self._store.load_open()))
        if state == self._equal:
            return
        present = {letter.id: letter for letter in self._letters.list(limit=MAX_COMPARED)}
        # Loaded again, since a letter may have been recorded and published meanwhile.
        known = self._store.load_open()
        names = {letter.id for letter in known}
        missing = [
            make_record(letter.message, reason=letter.reason, died_at=letter.died_at)
            for name, letter in present.items()
            if name not in names
        ]
        if missing:
            self._store.record(missing)
        # Of more letters than that, only the oldest were fetched.
        unseen = [letter for letter in known if letter.id not in present] if depth <= MAX_COMPARED else []
        old = self._clock() - _BEING_PUBLISHED
        absent = [letter for letter in unseen if letter.died_at < old]
        # Twice in a row: another tool may be looking at the letters, which hides them.
        gone = [letter for letter in absent if letter.id in self._absent]
        self._store.settle(gone, outcome="taken from the queue by other means")
        self._absent = frozenset(letter.id for letter in absent)
        self._equal = None if missing or unseen else state


def make_record(message: Message, *, reason: str, died_at: datetime) -> DeadLetterRecord:
    """A dead letter as the ledger records it."""
    body = message.body.decode("utf-8", errors="backslashreplace")
    return DeadLetterRecord(id=dead_letter_id(message), reason=reason, died_at=died_at, body=body)


def _name(letters: Sequence[DeadLetterRecord]) -> frozenset[tuple[str, datetime]]:
    return frozenset((letter.id, letter.died_at) for letter in letters)
