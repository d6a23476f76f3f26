"""The ledger: claims go in, and what they change is recorded together with whom it is told to."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, Engine

from service.domain.claims import Claim, OrderKey, Trust
from service.domain.order_state import Verdict
from service.domain.refusals import RefusalCount
from service.ledger import orders
from service.ledger.announcements import Announcement, record_announcement
from service.ledger.claim_rows import Entry, correct_verdicts, firsts, insert_claims, prune_payloads
from service.ledger.decisions import Decider, Decision, question
from service.ledger.errors import OrderUnknown, UnknownMerchant
from service.ledger.forgeries import Forgeries
from service.ledger.histories import OrderHistory, is_known, load_history
from service.ledger.inquiries import InquiryReason, InquiryRecord, close_inquiries, load_inquiry, open_inquiries
from service.ledger.orders import OrderFilter, OrderRecord
from service.ledger.outbox import enqueue
from service.ledger.questions import prune_asked
from service.ledger.refusal_counts import record_refusals
from service.ledger.resolutions import Resolution, claim_from_resolution
from service.ledger.rules import EndpointRules, MerchantRules
from service.ledger.sanitizing import require_sanitized, sanitized, shortened
from service.ledger.transactions import read, write

_PRUNED_AT_ONCE = 1000


class LedgerStore:
    """What we know of every order. Safe to share between threads; any number of processes may have their own.

    Every method raises LedgerUnavailable while the database cannot be used; calling again is safe.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        rules: Mapping[str, MerchantRules],
        endpoints: Sequence[EndpointRules],
        clock: Callable[[], datetime],
    ) -> None:
        self._engine = engine
        self._rules = rules
        self._endpoints = endpoints
        self._clock = clock

    def record(self, claims: Sequence[Claim]) -> Sequence[Verdict]:
        """Record claims in one transaction, with all that they change; their verdicts, in their order.

        They are decided in the order given. A claim that was recorded before is a DUPLICATE and not decided again.
        One of a merchant that is not configured is kept as QUARANTINED; so it is not lost, and when the gateway repeats
        it after the merchant was configured, it is decided. Raises ClaimUnstorable, with nothing recorded, where one
        of them can never be stored.
        """
        if not claims:
            return []
        entries = [self._entry(position, sanitized(claim)) for position, claim in enumerate(claims)]
        verdicts = _verdicts(write(self._engine, lambda connection: self._record(connection, entries)))
        return [verdicts.get(entry.position, Verdict.DUPLICATE) for entry in entries]

    def record_refusals(self, counts: Sequence[RefusalCount]) -> None:
        """Take over how many callbacks each process of the receiver has refused so far; again is harmless."""
        write(self._engine, lambda connection: record_refusals(connection, counts))

    def apply(self, connection: Connection, claim: Claim) -> Decision:
        """Record one claim within the caller's transaction; what was decided. For who settles something with it."""
        [decision] = self._record(connection, [self._entry(0, sanitized(claim))])
        return decision

    def announce(self, announcement: Announcement) -> OrderRecord:
        """Make an order known before it is sent to the gateway, so that it is asked for if no callback comes.

        Announcing it again with equal values is harmless; with others raises AnnouncementDiffers. Where a callback
        has overtaken the announcement, fills in what only the announcement knows. Raises UnknownMerchant.
        """
        merchant = self._merchant(announcement.merchant)
        now = self._clock()
        return write(
            self._engine,
            lambda connection: record_announcement(connection, announcement, merchant=merchant, now=now),
        )

    def inquire(self, order: OrderKey, reason: InquiryReason) -> bool:
        """Open an inquiry about the order, due now, or add the reason to the one that is open.

        False where the merchant's gateway cannot be asked. Raises UnknownMerchant.
        """
        merchant = self._merchant(order.merchant)
        if not merchant.can_ask:
            return False
        now = self._clock()
        asked = question(order, reason, now, merchant, now=now)
        write(self._engine, lambda connection: open_inquiries(connection, [asked], now=now))
        return True

    def resolve(self, resolution: Resolution) -> Verdict:
        """Record a person's word, which outranks every other, and all that it changes; its verdict.

        Each call is a word of its own: what an operator says twice is there twice. Raises UnknownMerchant, OrderUnknown
        where nobody ever spoke of the order, so that a slip of the pen makes no payment, and ClaimUnstorable.
        """
        self._merchant(resolution.order.merchant)
        require_sanitized(resolution.order)
        if not self.knows(resolution.order):
            raise OrderUnknown(resolution.order.biz_order_no)
        [verdict] = self.record([claim_from_resolution(resolution, stated_at=self._clock())])
        return verdict

    def is_configured(self, merchant: str) -> bool:
        """Whether it has rules for a merchant of this name."""
        return merchant in self._rules

    def load_order(self, key: OrderKey) -> OrderRecord | None:
        """What is believed of the order; None where it was neither announced nor spoken of with enough trust."""
        return read(self._engine, lambda connection: orders.load(connection, key))

    def knows(self, key: OrderKey) -> bool:
        """Whether anybody ever spoke of the order, believed or not."""
        return read(self._engine, lambda connection: is_known(connection, key))

    def load_inquiry(self, key: OrderKey) -> InquiryRecord | None:
        """The order's inquiry; None where there never was a reason to ask."""
        return read(self._engine, lambda connection: load_inquiry(connection, key))

    def order_history(self, key: OrderKey) -> OrderHistory:
        """Claims, events, deliveries and the inquiry around the order; empty where nobody ever spoke of it.

        All claims that counted, and the newest of the others.
        """
        return read(self._engine, lambda connection: load_history(connection, key))

    def list_orders(self, chosen: OrderFilter, *, limit: int) -> Sequence[OrderRecord]:
        """At most `limit` orders, those that changed last first."""
        return read(self._engine, lambda connection: orders.listed(connection, chosen, limit))

    def prune(self, *, before: datetime) -> int:
        """Remove forged orders that were over before, and the payloads of claims recorded before; of how many claims.

        Payloads are the channel's words, unnamed fields and words that nobody knows. What the gateway was asked before
        then is forgotten as well. Orders, their claims and events themselves stay. Runs in many short transactions; may
        be stopped at any point.
        """
        pruned = Forgeries(engine=self._engine).remove(before=before).claims
        while some := write(
            self._engine, lambda connection: prune_payloads(connection, before=before, most=_PRUNED_AT_ONCE)
        ):
            pruned += some
        while write(self._engine, lambda connection: prune_asked(connection, before=before, most=_PRUNED_AT_ONCE)):
            pass
        return pruned

    def _merchant(self, name: str) -> MerchantRules:
        try:
            return self._rules[name]
        except KeyError:
            raise UnknownMerchant(name) from None

    def _entry(self, position: int, claim: Claim) -> Entry:
        merchant = self._rules.get(claim.merchant)
        if merchant is None:
            claim = replace(claim, quarantine=claim.quarantine or "the merchant is not configured")
            return Entry(position=position, claim=claim, counted=False)
        counted = merchant.counts(claim)
        if claim.trust is Trust.CHECKSUM and not counted:
            claim = shortened(claim)
        return Entry(position=position, claim=claim, counted=counted)

    def _record(self, connection: Connection, entries: Sequence[Entry]) -> Collection[Decision]:
        now = self._clock()
        candidates = firsts(entries)
        about: dict[OrderKey, list[Entry]] = {}
        for entry in candidates:
            about.setdefault(entry.claim.order, []).append(entry)
        deciders = {name: self._decider(name, now) for name in {key.merchant for key in about}}

        # Most are of orders that are not there yet. Those are made as the claims leave them, and are written once.
        blank = {
            key: OrderRecord(merchant=key.merchant, biz_order_no=key.biz_order_no, created_at=now, updated_at=now)
            for key, of_order in about.items()
            if any(entry.counted for entry in of_order)
        }
        presumed = {key: deciders[key.merchant].decide(order, about[key]) for key, order in blank.items()}
        made = orders.insert_missing(connection, [one.order for one in presumed.values() if one.order])
        before: Mapping[OrderKey, OrderRecord] = {**blank, **orders.lock(connection, about.keys() - made)}
        decided = {
            key: presumed[key] if key in made else deciders[key.merchant].decide(before.get(key), of_order)
            for key, of_order in about.items()
        }

        verdicts = _verdicts(decided.values())
        row_ids = insert_claims(connection, candidates, [verdicts[entry.position] for entry in candidates], now=now)
        if len(row_ids) < len(candidates):
            # Some were recorded before: decide as if they had not come, and mend what they have led astray.
            for key in {entry.claim.order for entry in candidates if entry.position not in row_ids}:
                fresh = [entry for entry in about[key] if entry.position in row_ids]
                repeated = [entry for entry in about[key] if entry.position not in row_ids]
                decided[key] = deciders[key.merchant].decide(before.get(key), fresh, repeated=repeated)
            mended = _verdicts(decided.values()).items()
            correct_verdicts(connection, {row_ids[place]: new for place, new in mended if new is not verdicts[place]})

        stored = {key: presumed[key].order if key in made else before.get(key) for key in about}
        orders.save(connection, [one.order for key, one in decided.items() if one.order and one.order != stored[key]])
        enqueue(connection, decided.values(), now=now)
        close_inquiries(connection, [key for key, one in decided.items() if one.answered])
        open_inquiries(connection, [one.question for one in decided.values() if one.question], now=now)
        return decided.values()

    def _decider(self, merchant: str, now: datetime) -> Decider:
        return Decider(merchant=self._rules.get(merchant), endpoints=self._endpoints, now=now)


def _verdicts(decided: Iterable[Decision]) -> dict[int, Verdict]:
    return {position: verdict for one in decided for position, verdict in one.verdicts.items()}
