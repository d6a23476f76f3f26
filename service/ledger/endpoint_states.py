"""How each endpoint stands: what waits for it, what it got last, and what went wrong."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, func, select

from service.ledger.pauses import Pause, load_pauses
from service.ledger.tables import deliveries
from service.ledger.transactions import read

_IS_OPEN = deliveries.c.state == "open"
_IS_PARKED = deliveries.c.state == "parked"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointState:
    """One endpoint's deliveries, counted, and whether it is paused. Times are aware."""

    endpoint: str
    pause: Pause | None
    #: Not delivered yet, and not given up.
    open: int
    #: Given up until a person replays them.
    parked: int
    #: When the oldest open one's event was made; None where nothing is open.
    oldest_open_at: datetime | None
    #: When it took an event last; None where it never has.
    last_delivered_at: datetime | None
    #: What an event that is not delivered met at its last try, the open ones first; "" where none has failed.
    last_error: str


def read_endpoint_states(engine: Engine, endpoints: Collection[str]) -> Sequence[EndpointState]:
    """The state of each of `endpoints`, and then of others for which something waits or that are paused.

    Those others are in no settings any more, and nobody delivers to them. Raises LedgerUnavailable.
    """
    return read(engine, lambda connection: _read_states(connection, endpoints))


def _read_states(connection: Connection, endpoints: Collection[str]) -> Sequence[EndpointState]:
    pauses = load_pauses(connection)
    opened = _by_endpoint(connection, _counted(func.min(deliveries.c.created_at).label("oldest")).where(_IS_OPEN))
    parked = _by_endpoint(connection, _counted().where(_IS_PARKED))
    others = sorted({*pauses, *opened, *parked} - set(endpoints))
    return [
        EndpointState(
            endpoint=name,
            pause=pauses.get(name),
            open=opened[name].deliveries if name in opened else 0,
            parked=parked[name].deliveries if name in parked else 0,
            oldest_open_at=opened[name].oldest if name in opened else None,
            last_delivered_at=_last_delivered_at(connection, name),
            last_error=_last_error(connection, name),
        )
        for name in (*endpoints, *others)
    ]


def _counted(*more: Any) -> Select[Any]:
    return select(deliveries.c.endpoint, func.count().label("deliveries"), *more).group_by(deliveries.c.endpoint)


def _by_endpoint(connection: Connection, query: Select[Any]) -> dict[str, Row[Any]]:
    return {row.endpoint: row for row in connection.execute(query)}


def _last_delivered_at(connection: Connection, endpoint: str) -> datetime | None:
    delivered = (deliveries.c.endpoint == endpoint) & (deliveries.c.state == "delivered")
    last: datetime | None = connection.execute(select(func.max(deliveries.c.settled_at)).where(delivered)).scalar_one()
    return last


def _last_error(connection: Connection, endpoint: str) -> str:
    failed = select(deliveries.c.last_error).where(deliveries.c.endpoint == endpoint, deliveries.c.last_error != "")
    for query in (
        failed.where(_IS_OPEN).order_by(deliveries.c.due_at.desc()),
        failed.where(_IS_PARKED).order_by(deliveries.c.settled_at.desc()),
    ):
        found = connection.execute(query.limit(1)).scalar_one_or_none()
        if found is not None:
            return str(found)
    return ""
