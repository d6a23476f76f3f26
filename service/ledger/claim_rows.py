"""Claims as rows: each true callback once, each answer and each operator's word as often as it is given."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, bindparam, case, func, select, update

from service.domain.claims import Claim, ClaimSource, OrderKey, OrderStatus, Trust
from service.domain.order_state import Verdict
from service.ledger.inserts import insert_new
from service.ledger.tables import claims, repeated_callback

#: So many of an order's claims that never counted are loaded, the newest: a forger can make any number of them.
MOST_UNCOUNTED = 200
_PRUNED_QUARANTINE = "words that nobody knew, pruned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A claim on its way into the ledger."""

    #: Its place in the batch.
    position: int
    claim: Claim
    #: Whether it can be read and is trusted enough to change its order.
    counted: bool

    @property
    def identity(self) -> tuple[object, ...]:
        """What two entries share of which one repeats the other."""
        claim = self.claim
        once = (claim.merchant, claim.biz_order_no, claim.digest, int(claim.trust), self.counted)
        return once if claim.trust < Trust.QUERIED else (*once, self.position)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRecord:
    """A claim as it was recorded, for people who ask how an order came to its state."""

    verdict: Verdict
    trust: Trust
    source: ClaimSource
    status: OrderStatus | None
    pay_order_no: str | None
    #: As sent; "" once pruned, where nobody knew the word.
    order_type: str
    pay_type: str
    paid_at: datetime | None
    #: Unmasked; "" once pruned.
    channel_response: str
    unknown_fields: Mapping[str, str]
    #: What the document requires and was left out.
    missing_fields: Sequence[str]
    stated_at: datetime
    recorded_at: datetime
    quarantine: str | None
    #: An operator's name and reason; "" otherwise.
    stated_by: str
    reason: str


def insert_claims(
    connection: Connection, entries: Sequence[Entry], verdicts: Sequence[Verdict], *, now: datetime
) -> dict[int, int]:
    """Record entries with their verdicts; answers the row's id by the position of each that was not recorded before."""
    rows = [_to_row(entry, verdict) for entry, verdict in zip(entries, verdicts, strict=True)]
    # Two batches that wait for each other's rows would be a deadlock, so they insert in one order. Claims that count
    # are kept apart by the locks on their orders; their ids tell in which order they were decided.
    rows.sort(key=lambda row: (row["merchant"], row["biz_order_no"], row["counted"], _insertion_order(row)))
    new = [claims.c.position, claims.c.id]
    same = {"recorded_at": now, "pruned": False}
    recorded = insert_new(connection, claims, rows, same=same, unique=repeated_callback, returning=new)
    return {row.position: row.id for row in recorded}


def correct_verdicts(connection: Connection, verdicts: Mapping[int, Verdict]) -> None:
    """Write other verdicts, by row id, for claims that this transaction recorded."""
    if verdicts:
        connection.execute(
            update(claims).where(claims.c.id == bindparam("row")).values(verdict=bindparam("decided")),
            [{"row": row_id, "decided": verdict.value} for row_id, verdict in verdicts.items()],
        )


def load_claims(connection: Connection, key: OrderKey) -> tuple[Sequence[ClaimRecord], int]:
    """Claims about an order, in the order in which they were decided, and how many others there are.

    All that counted, every answer and every person's word, and of the rest the newest `MOST_UNCOUNTED`.
    """
    about = select(claims).where(_about(key))
    lasting = claims.c.counted | (claims.c.trust >= int(Trust.QUERIED))
    others = about.where(~lasting).order_by(claims.c.id.desc()).limit(MOST_UNCOUNTED)
    found = [*connection.execute(about.where(lasting)), *connection.execute(others)]
    rows = sorted(found, key=lambda row: row.id)
    total = connection.execute(select(func.count()).select_from(claims).where(_about(key))).scalar_one()
    return [_from_row(row) for row in rows], total - len(rows)


def any_claim(connection: Connection, key: OrderKey) -> bool:
    """Whether anybody ever spoke of the order, believed or not."""
    return connection.execute(select(claims.c.id).where(_about(key)).limit(1)).first() is not None


def last_traceparent(connection: Connection, key: OrderKey) -> str | None:
    """The traceparent of the order's last claim; None where it had none, or nobody ever spoke of the order."""
    query = select(claims.c.traceparent).where(_about(key)).order_by(claims.c.id.desc()).limit(1)
    return connection.execute(query).scalar_one_or_none()


def prune_payloads(connection: Connection, *, before: datetime, most: int) -> int:
    """Remove from at most `most` claims recorded before what the channel said and what nobody named or knew; how many.

    Nobody knew, of a claim that was quarantined, the words for which it was.
    """
    old = select(claims.c.id).where(claims.c.recorded_at < before, ~claims.c.pruned).limit(most)
    emptied = (
        update(claims)
        .where(claims.c.id.in_(old))
        .values(
            channel_response="",
            unknown_fields="{}",
            order_type=case((claims.c.quarantine.is_(None), claims.c.order_type), else_=""),
            pay_type=case((claims.c.quarantine.is_(None), claims.c.pay_type), else_=""),
            quarantine=case((claims.c.quarantine.is_not(None), _PRUNED_QUARANTINE)),
            pruned=True,
        )
        .returning(claims.c.id)
    )
    return len(connection.execute(emptied).all())


def firsts(entries: Collection[Entry]) -> list[Entry]:
    """The entries without those that repeat an earlier one of the same batch."""
    seen: dict[tuple[object, ...], Entry] = {}
    for entry in entries:
        seen.setdefault(entry.identity, entry)
    return list(seen.values())


def _about(key: OrderKey) -> ColumnElement[bool]:
    return (claims.c.merchant == key.merchant) & (claims.c.biz_order_no == key.biz_order_no)


def _insertion_order(row: Mapping[str, Any]) -> tuple[str, int]:
    return ("", row["position"]) if row["counted"] else (row["digest"], row["trust"])


def _to_row(entry: Entry, verdict: Verdict) -> dict[str, Any]:
    claim = entry.claim
    return {
        "position": entry.position,
        "merchant": claim.merchant,
        "biz_order_no": claim.biz_order_no,
        "digest": claim.digest,
        "trust": int(claim.trust),
        "counted": entry.counted,
        "verdict": verdict.value,
        "source": claim.source.value,
        "status": None if claim.status is None else claim.status.value,
        "pay_order_no": claim.pay_order_no,
        "order_type": claim.order_type,
        "pay_type": claim.pay_type,
        "paid_at": claim.paid_at,
        "channel_response": claim.channel_response,
        # ASCII: no character in it that a database could refuse.
        "unknown_fields": json.dumps(dict(claim.unknown_fields), ensure_ascii=True) if claim.unknown_fields else "{}",
        "missing_fields": " ".join(claim.missing_fields),
        "stated_at": claim.stated_at,
        "quarantine": claim.quarantine,
        "traceparent": claim.traceparent,
        "stated_by": claim.stated_by,
        "reason": claim.reason,
    }


def _from_row(row: Row[Any]) -> ClaimRecord:
    return ClaimRecord(
        verdict=Verdict(row.verdict),
        trust=Trust(row.trust),
        source=ClaimSource(row.source),
        status=None if row.status is None else OrderStatus(row.status),
        pay_order_no=row.pay_order_no,
        order_type=row.order_type,
        pay_type=row.pay_type,
        paid_at=row.paid_at,
        channel_response=row.channel_response,
        unknown_fields=json.loads(row.unknown_fields),
        missing_fields=tuple(row.missing_fields.split()),
        stated_at=row.stated_at,
        recorded_at=row.recorded_at,
        quarantine=row.quarantine,
        stated_by=row.stated_by,
        reason=row.reason,
    )
