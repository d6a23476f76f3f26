"""Claims as rows: each distinct callback once, each answer and each operator's resolution every time."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, bindparam, case, func, select, tuple_, update

from service.domain.claims import Claim, ClaimSource, OrderKey, OrderStatus, Trust
from service.domain.money import Money
from service.domain.order_state import Verdict
from service.ledger.bulk import insert_new
from service.ledger.tables import about_order, claims, repeated_callback, to_record

#: The statuses that a person may decide.
RESOLVABLE = (OrderStatus.PROCESSING, OrderStatus.SUCCEEDED, OrderStatus.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What a named person decides about an order. It outranks every other claim; only another one can replace it."""

    order: OrderKey
    status: OrderStatus
    #: Who decides, and by which interface.
    stated_by: str
    reason: str
    #: What tells this person from all others; "" where nobody can tell.
    identity: str = ""
    #: The gateway's number for the payment, where the person knows it.
    pay_order_no: str | None = None
    #: Through which channel the money went, and how much it was, where the person knows it.
    pay_type: str = ""
    amount: Money | None = None
    #: When the money moved, aware, where the person knows it.
    paid_at: datetime | None = None
    #: The order's sequence when the person looked at it; None where nobody says.
    seen_sequence: int | None = None


def claim_from_resolution(resolution: Resolution, *, stated_at: datetime) -> Claim:
    """The resolution as a claim, stated at `stated_at` (aware)."""
    stated = [
        "operator-v1",
        resolution.status.value,
        resolution.pay_order_no or "",
        resolution.paid_at.isoformat() if resolution.paid_at else "",
        resolution.stated_by,
        resolution.reason,
    ]
    if resolution.pay_type or resolution.amount:
        amount = resolution.amount.to("fen").text if resolution.amount else ""
        stated = ["operator-v2", *stated[1:], resolution.pay_type, amount]
    return Claim(
        merchant=resolution.order.merchant,
        biz_order_no=resolution.order.biz_order_no,
        trust=Trust.OPERATOR,
        source=ClaimSource.OPERATOR,
        status=resolution.status,
        pay_order_no=resolution.pay_order_no,
        pay_type=resolution.pay_type,
        amount=resolution.amount,
        paid_at=resolution.paid_at,
        stated_at=stated_at,
        digest=sha256(json.dumps(stated).encode()).hexdigest(),
        stated_by=resolution.stated_by,
        reason=resolution.reason,
    )


#: The most uncounted claims of an order that are loaded, the newest ones: a forger can make any number of them.
MAX_UNCOUNTED = 200
_PRUNED_QUARANTINE = "words that nobody knew, pruned"


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingClaim:
    """A claim in a batch that is being recorded."""

    #: Its place in the batch.
    position: int
    claim: Claim
    #: Whether it is readable and trusted enough to change its order.
    counted: bool

    @property
    def identity(self) -> tuple[object, ...]:
        """Two claims with equal identities are repeats of each other."""
        claim = self.claim
        once = (claim.merchant, claim.biz_order_no, claim.digest, int(claim.trust), self.counted)
        return once if claim.trust < Trust.QUERIED else (*once, self.position)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRecord:
    """A claim as it was recorded: why an order is in its state."""

    verdict: Verdict
    trust: Trust
    source: ClaimSource
    status: OrderStatus | None
    pay_order_no: str | None
    #: As sent; "" once pruned, where the claim was quarantined.
    order_type: str
    pay_type: str
    #: An exact string in `amount_unit`; both None where none was stated that could be read.
    amount: str | None
    amount_unit: str | None
    paid_at: datetime | None
    #: Unmasked; "" once pruned.
    channel_response: str
    unknown_fields: Mapping[str, str]
    #: Fields that the document requires and the gateway left out.
    missing_fields: Sequence[str]
    stated_at: datetime
    recorded_at: datetime
    quarantine: str | None
    #: An operator's name and reason; "" otherwise.
    stated_by: str
    reason: str


def insert_claims(
    connection: Connection, incoming: Sequence[IncomingClaim], verdicts: Sequence[Verdict], *, now: datetime
) -> dict[int, int]:
    """Record claims with their verdicts; the row ids of those that were not recorded before, by position."""
    rows = [_to_row(one, verdict) for one, verdict in zip(incoming, verdicts, strict=True)]
    # All batches insert in one order: two that wait for each other's rows would be a deadlock. Claims that count are
    # kept apart by the locks on their orders; their ids show in which order they were decided.
    rows.sort(key=lambda row: (row["merchant"], row["biz_order_no"], row["counted"], _insertion_order(row)))
    new = [claims.c.position, claims.c.id]
    constants = {"recorded_at": now, "pruned": False}
    recorded = insert_new(connection, claims, rows, constants=constants, unique=repeated_callback, returning=new)
    return {row.position: row.id for row in recorded}


def find_repeats_without_amount(
    connection: Connection, incoming: Iterable[IncomingClaim], amount_fields: Mapping[str, str]
) -> set[int]:
    """The positions of callbacks that were recorded before their merchant's amounts were read, with another digest.

    `amount_fields` names the field of the amount by merchant. A callback is no repeat if the recorded one had another
    amount in that field. Call it while their orders are locked. It costs nothing where no claim states an amount.
    """
    stating_amount: dict[tuple[object, ...], list[IncomingClaim]] = {}
    for one in incoming:
        claim = one.claim
        if one.counted and claim.digest_without_amount and claim.trust < Trust.QUERIED:
            name = (claim.merchant, claim.biz_order_no, claim.digest_without_amount, int(claim.trust))
            stating_amount.setdefault(name, []).append(one)
    if not stating_amount:
        return set()
    key = [claims.c[name] for name in ("merchant", "biz_order_no", "digest", "trust")]
    query = select(*key, claims.c.unknown_fields, claims.c.pruned).where(
        tuple_(*key).in_(stating_amount), claims.c.counted, claims.c.trust < int(Trust.QUERIED)
    )
    repeats = set()
    for row in connection.execute(query):
        for one in stating_amount[tuple(row)[: len(key)]]:
            field = amount_fields.get(row.merchant, "")
            if row.pruned or json.loads(row.unknown_fields).get(field) == one.claim.unknown_fields.get(field):
                repeats.add(one.position)
    return repeats


def correct_verdicts(connection: Connection, verdicts: Mapping[int, Verdict]) -> None:
    """Replace verdicts, by row id, of claims that this transaction recorded."""
    if verdicts:
        connection.execute(
            update(claims).where(claims.c.id == bindparam("row")).values(verdict=bindparam("decided")),
            [{"row": row_id, "decided": verdict.value} for row_id, verdict in verdicts.items()],
        )


def load_claims(connection: Connection, key: OrderKey) -> tuple[Sequence[ClaimRecord], int]:
    """An order's claims, in the order in which they were decided, and the number of those left out.

    Loads all that counted, all answers and resolutions, and the newest `MAX_UNCOUNTED` of the rest.
    """
    about = select(claims).where(about_order(claims, key))
    lasting = claims.c.counted | (claims.c.trust >= int(Trust.QUERIED))
    others = about.where(~lasting).order_by(claims.c.id.desc()).limit(MAX_UNCOUNTED)
    found = [*connection.execute(about.where(lasting)), *connection.execute(others)]
    rows = sorted(found, key=lambda row: row.id)
    total = connection.execute(select(func.count()).select_from(claims).where(about_order(claims, key))).scalar_one()
    records = [
        to_record(
            ClaimRecord,
            row,
            unknown_fields=json.loads(row.unknown_fields),
            missing_fields=tuple(row.missing_fields.split()),
        )
        for row in rows
    ]
    return records, total - len(rows)


def any_claim(connection: Connection, key: OrderKey) -> bool:
    """Whether any claim about the order was recorded, believed or not."""
    return connection.execute(select(claims.c.id).where(about_order(claims, key)).limit(1)).first() is not None


def last_traceparent(connection: Connection, key: OrderKey) -> str | None:
    """The traceparent of the order's last claim; None where it had none, or there is no claim."""
    query = select(claims.c.traceparent).where(about_order(claims, key)).order_by(claims.c.id.desc()).limit(1)
    return connection.execute(query).scalar_one_or_none()


def prune_payloads(connection: Connection, *, before: datetime, most: int) -> int:
    """Remove the payloads of at most `most` claims recorded before; the number of claims.

    The payload is the channel's response, unknown fields and, of a quarantined claim, its order type and pay type.
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


def drop_repeats(incoming: Collection[IncomingClaim]) -> list[IncomingClaim]:
    """The claims without those that repeat an earlier one of the same batch."""
    seen: dict[tuple[object, ...], IncomingClaim] = {}
    for one in incoming:
        seen.setdefault(one.identity, one)
    return list(seen.values())


def _insertion_order(row: Mapping[str, Any]) -> tuple[str, int]:
    return ("", row["position"]) if row["counted"] else (row["digest"], row["trust"])


def _to_row(incoming: IncomingClaim, verdict: Verdict) -> dict[str, Any]:
    claim = incoming.claim
    return {
        "position": incoming.position,
        "merchant": claim.merchant,
        "biz_order_no": claim.biz_order_no,
        "digest": claim.digest,
        "trust": int(claim.trust),
        "counted": incoming.counted,
        "verdict": verdict.value,
        "source": claim.source.value,
        "status": None if claim.status is None else claim.status.value,
        "pay_order_no": claim.pay_order_no,
        "order_type": claim.order_type,
        "pay_type": claim.pay_type,
        "amount": None if claim.amount is None else claim.amount.text,
        "amount_unit": None if claim.amount is None else claim.amount.unit,
        "paid_at": claim.paid_at,
        "channel_response": claim.channel_response,
        # ASCII has no character that a database could refuse.
        "unknown_fields": json.dumps(dict(claim.unknown_fields), ensure_ascii=True) if claim.unknown_fields else "{}",
        "missing_fields": " ".join(claim.missing_fields),
        "stated_at": claim.stated_at,
        "quarantine": claim.quarantine,
        "traceparent": claim.traceparent,
        "stated_by": claim.stated_by,
        "reason": claim.reason,
    }
