"""Dead letters as the ledger knows them: what could not be recorded, and what a person wants done about it.

The letters themselves are in the queue. The ledger role keeps these rows equal to them, and carries out the requests,
so that whoever lists or settles dead letters needs the database alone.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, select, update

from service.domain.masking import mask_personal
from service.ledger.audit import Action, Author, record_change
from service.ledger.bulk import insert_new, insert_or_update
from service.ledger.database import read, shared_time, write
from service.ledger.errors import DeadLetterUnknown
from service.ledger.sanitizing import escaped
from service.ledger.tables import comes_after, dead_letters, leases, to_record

_LONGEST_REASON = 1000
_LONGEST_BODY = 4000
# The name of the work in `leases`.
_READING = "dead-letters"


class DeadLetterAction(StrEnum):
    """What is to become of a dead letter."""

    #: Put it back into the queue.
    REPLAY = "replay"
    #: Delete it for good.
    DROP = "drop"


_AUDITED = {
    DeadLetterAction.REPLAY: Action.REPLAY_DEAD_LETTERS,
    DeadLetterAction.DROP: Action.DROP_DEAD_LETTERS,
}


class DeadLetterPlace(NamedTuple):
    """A letter's place in the list of letters."""

    died_at: datetime
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterRecord:
    """A message in the dead letters, or one that was there."""

    id: str
    #: Why it could not be recorded.
    reason: str
    died_at: datetime
    #: The message's body as text; once recorded, masked and cut.
    body: str
    #: What a person wants done, who and why; None and "" where nobody has asked for anything.
    requested: DeadLetterAction | None = None
    requested_by: str = ""
    requested_reason: str = ""
    #: When it was replayed, dropped, or found to be gone; None while it waits.
    settled_at: datetime | None = None
    #: What became of it, in words; "" while it waits.
    outcome: str = ""

    @property
    def place(self) -> DeadLetterPlace:
        """Its place in the list of letters."""
        return DeadLetterPlace(self.died_at, self.id)


class DeadLetterStore:
    """Keeps the rows. Safe to share between threads. Every method raises LedgerUnavailable; calling again is safe."""

    def __init__(self, *, engine: Engine, clock: Callable[[Connection], datetime] = shared_time) -> None:
        """`clock` has to give all processes the same time."""
        self._engine = engine
        self._clock = clock

    def record(self, letters: Collection[DeadLetterRecord]) -> None:
        """Record letters, also those that were settled before and have come back. Their bodies are masked."""
        waiting = [
            DeadLetterRecord(
                id=escaped(letter.id),
                reason=mask_personal(escaped(letter.reason))[:_LONGEST_REASON],
                died_at=letter.died_at,
                body=mask_personal(escaped(letter.body))[:_LONGEST_BODY],
            )
            for letter in {letter.id: letter for letter in letters}.values()
        ]
        rows = [asdict(letter) for letter in waiting]
        write(self._engine, lambda connection: insert_or_update(connection, dead_letters, rows))

    def load(self, ids: Collection[str]) -> Sequence[DeadLetterRecord]:
        """The letters with these ids, settled or not, oldest first. Unknown ids are left out."""
        return self._load(dead_letters.c.id.in_(set(ids)))

    def load_open(
        self, *, limit: int | None = None, after: DeadLetterPlace | None = None
    ) -> Sequence[DeadLetterRecord]:
        """The letters that are not settled, oldest first; at most `limit`, and only those after a place."""
        is_open: ColumnElement[bool] = dead_letters.c.settled_at.is_(None)
        if after is not None:
            is_open &= comes_after([dead_letters.c.died_at, dead_letters.c.id], after)
        return self._load(is_open, limit=limit)

    def load_requested(self) -> Sequence[DeadLetterRecord]:
        """The letters that somebody wants replayed or dropped, oldest first."""
        return self._load(dead_letters.c.settled_at.is_(None) & dead_letters.c.requested.is_not(None))

    def _load(self, condition: ColumnElement[bool], *, limit: int | None = None) -> Sequence[DeadLetterRecord]:
        query = select(dead_letters).where(condition)
        query = query.order_by(dead_letters.c.died_at, dead_letters.c.id).limit(limit)
        rows = read(self._engine, lambda connection: connection.execute(query).all())
        return [to_record(DeadLetterRecord, row) for row in rows]

    def request(self, ids: Collection[str], action: DeadLetterAction, *, author: Author) -> None:
        """Ask the ledger role to replay or drop these letters. A later request replaces one not yet carried out.

        Raises DeadLetterUnknown, and asks for nothing, where one of them is no dead letter.
        """
        values = {
            "requested": action.value,
            "requested_by": escaped(author.name),
            "requested_reason": escaped(author.reason),
        }

        def ask(connection: Connection) -> None:
            named = dead_letters.c.id.in_(set(ids)) & dead_letters.c.settled_at.is_(None)
            asked = connection.execute(update(dead_letters).where(named).values(values).returning(dead_letters.c.id))
            found = set(asked.scalars())
            if unknown := set(ids) - found:
                raise DeadLetterUnknown(min(unknown))
            subject = ", ".join(sorted(found))
            record_change(connection, _AUDITED[action], subject, author, at=self._clock(connection))

        write(self._engine, ask)

    def settle(self, letters: Collection[DeadLetterRecord], *, outcome: str) -> None:
        """Record what became of letters, in words. The rows are kept, with who asked for it.

        A letter that has died again since it was loaded waits again, and stays so.
        """

        def finish(connection: Connection) -> None:
            now = self._clock(connection)
            for letter in sorted(letters, key=lambda letter: letter.id):
                waits = dead_letters.c.settled_at.is_(None) & (dead_letters.c.died_at == letter.died_at)
                settled = update(dead_letters).where(dead_letters.c.id == letter.id, waits)
                connection.execute(settled.values(settled_at=now, outcome=outcome))

        if letters:
            write(self._engine, finish)

    def lease_queue(self, *, seconds: float) -> datetime | None:
        """Lease the reading of the queue's dead letters; when the lease ends, or None where somebody else has it."""

        def lease(connection: Connection) -> datetime | None:
            now = self._clock(connection)
            insert_new(connection, leases, [{"work": _READING, "lease_until": now}])
            until = now + timedelta(seconds=seconds)
            free = update(leases).where(leases.c.work == _READING, leases.c.lease_until <= now)
            return until if connection.execute(free.values(lease_until=until)).rowcount else None

        return write(self._engine, lease)

    def release_queue(self, until: datetime) -> None:
        """End the lease that would end at `until`, unless somebody else has it by now."""

        def release(connection: Connection) -> None:
            held = update(leases).where(leases.c.work == _READING, leases.c.lease_until == until)
            connection.execute(held.values(lease_until=self._clock(connection)))

        write(self._engine, release)
