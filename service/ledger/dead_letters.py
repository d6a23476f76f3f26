"""Dead letters as the ledger knows them: what could not be recorded, and what a person wants done about it.

The letters themselves are in the queue. The ledger role keeps these rows equal to them, and carries out the requests,
so that whoever lists or settles dead letters needs the database alone.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, Connection, Engine, select, update

from service.domain.masking import mask_personal
from service.ledger.bulk import insert_or_update
from service.ledger.database import read, shared_time, write
from service.ledger.errors import DeadLetterUnknown
from service.ledger.sanitizing import escaped
from service.ledger.tables import dead_letters, to_record

_LONGEST_REASON = 1000
_LONGEST_BODY = 4000


class DeadLetterAction(StrEnum):
    """What is to become of a dead letter."""

    #: Put it back into the queue.
    REPLAY = "replay"
    #: Delete it for good.
    DROP = "drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterRecord:
    """A message in the dead letters."""

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


class DeadLetterStore:
    """Keeps the rows. Safe to share between threads. Every method raises LedgerUnavailable; calling again is safe."""

    def __init__(self, *, engine: Engine, clock: Callable[[Connection], datetime] = shared_time) -> None:
        """`clock` has to give all processes the same time."""
        self._engine = engine
        self._clock = clock

    def record(self, letters: Collection[DeadLetterRecord]) -> None:
        """Record letters, also those that were settled before and have come back. Their bodies are masked."""
        rows = [
            {
                "id": escaped(letter.id),
                "reason": mask_personal(escaped(letter.reason))[:_LONGEST_REASON],
                "died_at": letter.died_at,
                "body": mask_personal(escaped(letter.body))[:_LONGEST_BODY],
                "requested": None,
                "requested_by": "",
                "requested_reason": "",
                "settled_at": None,
                "outcome": "",
            }
            for letter in {letter.id: letter for letter in letters}.values()
        ]
        write(self._engine, lambda connection: insert_or_update(connection, dead_letters, rows))

    def load_open(self, *, limit: int | None = None) -> Sequence[DeadLetterRecord]:
        """The letters that are not settled, oldest first; at most `limit`."""
        return self._load(dead_letters.c.settled_at.is_(None), limit=limit)

    def load_requested(self) -> Sequence[DeadLetterRecord]:
        """The letters that somebody wants replayed or dropped, oldest first."""
        return self._load(dead_letters.c.settled_at.is_(None) & dead_letters.c.requested.is_not(None), limit=None)

    def _load(self, condition: ColumnElement[bool], *, limit: int | None) -> Sequence[DeadLetterRecord]:
        query = select(dead_letters).where(condition)
        query = query.order_by(dead_letters.c.died_at, dead_letters.c.id).limit(limit)
        rows = read(self._engine, lambda connection: connection.execute(query).all())
        return [
            to_record(DeadLetterRecord, row, requested=DeadLetterAction(row.requested) if row.requested else None)
            for row in rows
        ]

    def request(self, ids: Collection[str], action: DeadLetterAction, *, by: str, reason: str) -> None:
        """Ask the ledger role to replay or drop these letters. A later request replaces one not yet carried out.

        Raises DeadLetterUnknown, and asks for nothing, where one of them is no dead letter.
        """
        values = {"requested": action.value, "requested_by": escaped(by), "requested_reason": escaped(reason)}

        def ask(connection: Connection) -> None:
            named = dead_letters.c.id.in_(set(ids)) & dead_letters.c.settled_at.is_(None)
            asked = connection.execute(update(dead_letters).where(named).values(values).returning(dead_letters.c.id))
            if unknown := set(ids) - set(asked.scalars()):
                raise DeadLetterUnknown(sorted(unknown)[0])

        write(self._engine, ask)

    def settle(self, outcomes: Mapping[str, str]) -> None:
        """Record what became of letters, by id, in words. The rows are kept, with who asked for it."""

        def finish(connection: Connection) -> None:
            now = self._clock(connection)
            for name, outcome in sorted(outcomes.items()):
                is_open = (dead_letters.c.id == name) & dead_letters.c.settled_at.is_(None)
                connection.execute(update(dead_letters).where(is_open).values(settled_at=now, outcome=outcome))

        if outcomes:
            write(self._engine, finish)
