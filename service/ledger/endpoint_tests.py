"""Endpoint tests: an operator requests one, a dispatcher sends it, and its outcome is kept.

The dispatchers send them because they send the events: where network policies are strict, nothing else reaches an
endpoint.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, Engine, insert, select, update

from service.domain.masking import mask_personal
from service.ledger.audit import Action, Author, record_change
from service.ledger.database import read, shared_time, write
from service.ledger.sanitizing import escaped
from service.ledger.tables import endpoint_tests, to_record

_LONGEST_ANSWER = 500


class EndpointTestState(StrEnum):
    """How far an endpoint test is."""

    #: No dispatcher has taken it yet.
    REQUESTED = "requested"
    #: A dispatcher is sending it. It stays so if that dispatcher ends before it has the answer.
    SENDING = "sending"
    ACCEPTED = "accepted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointTestRecord:
    """A requested test, and its outcome. Times are aware."""

    id: int
    endpoint: str
    requested_by: str
    reason: str
    requested_at: datetime
    state: EndpointTestState
    #: When a dispatcher took it; None before.
    sent_at: datetime | None
    #: Of the event that was sent; "" until there is an outcome.
    event_id: str
    #: What the endpoint answered, or why there was no answer; "" until there is an outcome.
    answer: str
    #: Until the answer; None until there is an outcome.
    seconds: float | None


class EndpointTests:
    """Requests tests and keeps their outcomes. Safe to share between threads and processes.

    Every method raises LedgerUnavailable while the database cannot be used.
    """

    def __init__(self, *, engine: Engine, clock: Callable[[Connection], datetime] = shared_time) -> None:
        """`clock` has to give all processes the same time."""
        self._engine = engine
        self._clock = clock

    def request(self, endpoint: str, *, author: Author) -> EndpointTestRecord:
        """Have a dispatcher send a test to the endpoint. Each call requests a test of its own."""

        def ask(connection: Connection) -> EndpointTestRecord:
            now = self._clock(connection)
            values = {
                "endpoint": endpoint,
                "requested_by": escaped(author.name),
                "reason": escaped(author.reason),
                "requested_at": now,
                "state": EndpointTestState.REQUESTED,
                "event_id": "",
                "answer": "",
            }
            made = insert(endpoint_tests).values(values).returning(*endpoint_tests.c)
            record = to_record(EndpointTestRecord, connection.execute(made).one())
            record_change(connection, Action.TEST_ENDPOINT, endpoint, author, at=now)
            return record

        return write(self._engine, ask)

    def load(self, test: int) -> EndpointTestRecord | None:
        """The test with this id."""
        query = select(endpoint_tests).where(endpoint_tests.c.id == test)
        found = read(self._engine, lambda connection: connection.execute(query).one_or_none())
        return None if found is None else to_record(EndpointTestRecord, found)

    def take(self, endpoints: Collection[str]) -> EndpointTestRecord | None:
        """Take the oldest requested test of one of `endpoints`, so that nobody else sends it; None where there is none.

        A test is taken once. If the process ends before it has settled the test, nobody sends it.
        """
        requested = (
            select(endpoint_tests)
            .where(
                endpoint_tests.c.state == EndpointTestState.REQUESTED, endpoint_tests.c.endpoint.in_(list(endpoints))
            )
            .order_by(endpoint_tests.c.id)
            .limit(1)
        )

        def take(connection: Connection) -> EndpointTestRecord | None:
            row = connection.execute(requested.with_for_update(skip_locked=True)).one_or_none()
            if row is None:
                return None
            taken = {"state": EndpointTestState.SENDING, "sent_at": self._clock(connection)}
            marked = update(endpoint_tests).where(endpoint_tests.c.id == row.id).values(taken)
            taken_row = connection.execute(marked.returning(*endpoint_tests.c)).one()
            return to_record(EndpointTestRecord, taken_row)

        if read(self._engine, lambda connection: connection.execute(requested).one_or_none()) is None:
            return None
        return write(self._engine, take)

    def settle(self, test: int, *, accepted: bool, event_id: str, answer: str, seconds: float) -> None:
        """Record the outcome of a test. Calling it again is harmless."""
        outcome = {
            "state": EndpointTestState.ACCEPTED if accepted else EndpointTestState.FAILED,
            "event_id": event_id,
            "answer": mask_personal(escaped(answer))[:_LONGEST_ANSWER],
            "seconds": seconds,
        }
        statement = update(endpoint_tests).where(endpoint_tests.c.id == test).values(outcome)
        write(self._engine, lambda connection: connection.execute(statement))
