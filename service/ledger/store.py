"""The ledger store: records claims, and with them what they change and which endpoints receive the events."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, Engine

from service.domain.claims import Claim, OrderKey, OrderStatus, Trust
from service.domain.order_state import Verdict
from service.domain.refusals import RefusalCount
from service.ledger import orders
from service.ledger.announcements import Announcement, record_announcement
from service.ledger.audit import Action, Author, record_change, record_decision
from service.ledger.claims import (
    RESOLVABLE,
    IncomingClaim,
    Resolution,
    claim_from_resolution,
    correct_verdicts,
    drop_repeats,
    find_repeats_without_amount,
    insert_claims,
    prune_payloads,
)
from service.ledger.database import read, write
from service.ledger.decisions import Decision, EndpointRules, MerchantRules
from service.ledger.errors import (
    IdentityMissing,
    OrderChanged,
    OrderUnknown,
    ProposalClosed,
    ProposalOpen,
    SamePerson,
    UnknownMerchant,
)
from service.ledger.forgeries import Forgeries
from service.ledger.histories import OrderHistory, is_known, load_history
from service.ledger.inquiries import (
    InquiryReason,
    InquiryRecord,
    InquiryState,
    close_inquiries,
    list_inquiries,
    load_inquiry,
    open_inquiries,
)
from service.ledger.inquiry_questions import prune_asked
from service.ledger.orders import OrderFilter, OrderRecord
from service.ledger.outbox import enqueue
from service.ledger.proposals import (
    ProposalRecord,
    ProposalState,
    insert_proposal,
    load_open_proposal,
    load_proposal,
    settle_proposal,
)
from service.ledger.reports import record_refusals
from service.ledger.sanitizing import escaped, require_sanitized, sanitized, shortened

_PRUNED_AT_ONCE = 1000


class LedgerStore:
    """What is known of every order. Safe to share between threads; any number of processes may have one each.

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
        self._amount_fields = {merchant: its.amount_field for merchant, its in rules.items()}
        self._endpoints = endpoints
        self._clock = clock

    def record(self, claims: Sequence[Claim]) -> Sequence[Verdict]:
        """Record claims in one transaction, with all that they change; their verdicts, in the same order.

        Claims are decided in the order given. A claim that was recorded before is a DUPLICATE and not decided again.
        A claim about a merchant that is not configured is kept as QUARANTINED, and is decided when the gateway repeats
        it after the merchant was configured. Raises ClaimUnstorable, and records nothing, where one of the claims can
        never be stored.
        """
        if not claims:
            return []
        incoming = [self._incoming(position, claim) for position, claim in enumerate(claims)]
        verdicts = _verdicts(write(self._engine, lambda connection: self._record(connection, incoming)))
        return [verdicts.get(position, Verdict.DUPLICATE) for position in range(len(incoming))]

    def record_refusals(self, counts: Sequence[RefusalCount]) -> None:
        """Store how many callbacks each receiver process has refused so far. Repeating it is harmless."""
        now = self._clock()
        write(self._engine, lambda connection: record_refusals(connection, counts, now=now))

    def apply(self, connection: Connection, claim: Claim) -> Decision:
        """Record one claim within the caller's transaction, which settles something with it; what was decided."""
        [decision] = self._record(connection, [self._incoming(0, claim)])
        return decision

    def announce(self, announcement: Announcement) -> OrderRecord:
        """Record an order before it is sent to the gateway, so that the gateway is asked if no callback comes.

        Announcing it again with equal values is harmless; other values raise AnnouncementDiffers. Where a callback came
        first, this fills in what only the announcement knows, and opens a dispute where they contradict each other.
        Raises UnknownMerchant and ClaimUnstorable.
        """
        merchant = self._merchant(announcement.merchant)
        now = self._clock()
        return write(
            self._engine,
            lambda connection: record_announcement(
                connection, announcement, merchant=merchant, endpoints=self._endpoints, now=now
            ),
        )

    def inquire(self, order: OrderKey, reason: InquiryReason, *, author: Author | None = None) -> bool:
        """Open an inquiry about the order, due now, or add the reason to the one that is open.

        The audit keeps the `author`, if there is one. False where the merchant's gateway cannot be asked. Raises
        UnknownMerchant.
        """
        merchant = self._merchant(order.merchant)
        if not merchant.can_ask:
            return False
        now = self._clock()
        request = merchant.request_inquiry(order, reason, now, now=now)

        def ask(connection: Connection) -> None:
            open_inquiries(connection, [request], now=now)
            if author is not None:
                subject = f"{order.merchant}/{order.biz_order_no}"
                record_change(connection, Action.INQUIRE, subject, author, at=now, order=order)

        write(self._engine, ask)
        return True

    def resolve(self, resolution: Resolution) -> Verdict | ProposalRecord:
        """Record a person's resolution, which outranks every other claim, and all that it changes; its verdict.

        Where the merchant's rules require a second person, this records and returns a proposal and changes nothing
        else. Raises IdentityMissing there if nobody can tell who the first person is.

        Each call records a claim of its own, even one with the same content. Raises UnknownMerchant and ClaimUnstorable
        and, so that a typing error makes no payment, OrderUnknown where nothing is known of the order. Raises
        OrderChanged, and records nothing, where the order has another sequence than the person saw, and ProposalOpen
        while a proposal about the order waits.
        """
        rules = self._merchant(resolution.order.merchant)
        require_sanitized(resolution.order)
        if not self.knows(resolution.order):
            raise OrderUnknown(resolution.order.biz_order_no)
        claim = sanitized(claim_from_resolution(resolution, stated_at=self._clock()))

        def resolve(connection: Connection) -> Verdict | ProposalRecord:
            order = orders.lock(connection, [claim.order]).get(claim.order)
            if waiting := load_open_proposal(connection, claim.order):
                raise ProposalOpen(waiting.id)
            if not rules.need_second_person(resolution.status, resolution.amount, order):
                verdict = self._resolve(connection, claim, resolution.seen_sequence)
                author = Author(name=claim.stated_by, reason=claim.reason)
                record_decision(connection, Action.RESOLVE, claim.order, resolution.status, author, at=self._clock())
                return verdict
            if not resolution.identity:
                raise IdentityMissing("nobody can tell who proposes this: it needs a second person")
            sequence = 0 if order is None else order.sequence
            if resolution.seen_sequence not in (None, sequence):
                raise OrderChanged(sequence)
            return insert_proposal(
                connection, claim, identity=resolution.identity, sequence=sequence, now=self._clock()
            )

        return write(self._engine, resolve)

    def need_second_person(self, key: OrderKey, order: OrderRecord | None) -> Collection[OrderStatus]:
        """The statuses that a person alone cannot give to the order with this key. Raises UnknownMerchant."""
        rules = self._merchant(key.merchant)
        return [status for status in RESOLVABLE if rules.need_second_person(status, None, order)]

    def confirm(self, order: OrderKey, proposal: int, *, author: Author) -> Verdict:
        """Confirm a proposal in another person's name: the resolution is recorded as stated by both; its verdict.

        Only one of any number of calls does so. Raises ProposalUnknown, IdentityMissing where nobody can tell who the
        second person is, SamePerson where it is the one who has made the proposal, and ProposalClosed where it is not
        open any more, which is so as well if the order has changed since. Then nothing is changed. Raises
        UnknownMerchant.
        """
        self._merchant(order.merchant)
        now = self._clock()

        def confirm(connection: Connection) -> Verdict:
            # The order first, as everywhere.
            orders.lock(connection, [order])
            found = load_proposal(connection, order, proposal)
            if not author.identity:
                raise IdentityMissing("nobody can tell who confirms this")
            if escaped(author.identity) == found.proposer:
                raise SamePerson(f"{author.identity} has made proposal {proposal}: another person has to confirm it")
            settle_proposal(connection, found, ProposalState.CONFIRMED, author, now=now)
            claim = claim_from_resolution(found.to_resolution(confirmed_by=author.name), stated_at=now)
            try:
                return self._resolve(connection, claim, found.sequence)
            except OrderChanged as error:
                # The order had no row to lock, and has one now.
                raise ProposalClosed(proposal, ProposalState.LAPSED) from error

        return write(self._engine, confirm)

    def withdraw(self, order: OrderKey, proposal: int, *, author: Author) -> ProposalRecord:
        """Withdraw a proposal, so that nobody confirms it; the proposal afterwards. Anybody may do so, for a reason.

        Raises ProposalUnknown and ProposalClosed.
        """
        now = self._clock()

        def withdraw(connection: Connection) -> ProposalRecord:
            orders.lock(connection, [order])
            found = load_proposal(connection, order, proposal)
            settle_proposal(connection, found, ProposalState.WITHDRAWN, author, now=now)
            return load_proposal(connection, order, proposal)

        return write(self._engine, withdraw)

    def is_configured(self, merchant: str) -> bool:
        """Whether there are rules for a merchant of this name."""
        return merchant in self._rules

    def load_order(self, key: OrderKey) -> OrderRecord | None:
        """What is believed of the order; None where it was neither announced nor the subject of a trusted claim."""
        return read(self._engine, lambda connection: orders.load(connection, key))

    def knows(self, key: OrderKey) -> bool:
        """Whether the order was announced or any claim about it was recorded, believed or not."""
        return read(self._engine, lambda connection: is_known(connection, key))

    def load_inquiry(self, key: OrderKey) -> InquiryRecord | None:
        """The order's inquiry; None where there never was a reason to ask."""
        return read(self._engine, lambda connection: load_inquiry(connection, key))

    def list_inquiries(
        self, merchant: str, state: InquiryState, *, after: str, limit: int
    ) -> Sequence[tuple[OrderKey, InquiryRecord]]:
        """At most `limit` inquiries of a merchant in one state, by order number; those after the number `after`."""
        return read(
            self._engine,
            lambda connection: list_inquiries(connection, merchant=merchant, state=state, after=after, limit=limit),
        )

    def order_history(self, key: OrderKey) -> OrderHistory:
        """Claims, events, deliveries and the inquiry of the order; empty where nothing is known of it.

        It has all claims that counted, and the newest of the others.
        """
        return read(self._engine, lambda connection: load_history(connection, key))

    def list_orders(self, chosen: OrderFilter, *, limit: int) -> Sequence[OrderRecord]:
        """At most `limit` orders, the last changed first."""
        return read(self._engine, lambda connection: orders.listed(connection, chosen, limit))

    def find_orders(self, number: str, *, limit: int) -> Sequence[OrderRecord]:
        """At most `limit` orders with this number of a configured merchant or of the gateway, the last changed first.

        Raises ClaimUnstorable for a number that no order can have.
        """
        return read(self._engine, lambda connection: orders.find_by_number(connection, number, self._rules, limit))

    def prune(self, *, before: datetime) -> int:
        """Remove old forged orders, payloads of old claims, and old questions; the number of claims concerned.

        A payload is the channel's response, unknown fields and unknown types. Orders, their claims and their events
        stay. Runs in many short transactions, and may be stopped at any point.
        """
        pruned = Forgeries(engine=self._engine).remove(before=before).claims
        while some := write(
            self._engine, lambda connection: prune_payloads(connection, before=before, most=_PRUNED_AT_ONCE)
        ):
            pruned += some
        while write(self._engine, lambda connection: prune_asked(connection, before=before, most=_PRUNED_AT_ONCE)):
            pass
        return pruned

    def _resolve(self, connection: Connection, claim: Claim, seen_sequence: int | None) -> Verdict:
        decision = self.apply(connection, claim)
        # By now the order is locked. An error takes the claim back.
        before = 0 if decision.order is None else decision.order.sequence - len(decision.events)
        if seen_sequence not in (None, before):
            raise OrderChanged(before)
        return decision.verdicts[0]

    def _merchant(self, name: str) -> MerchantRules:
        try:
            return self._rules[name]
        except KeyError:
            raise UnknownMerchant(name) from None

    def _incoming(self, position: int, claim: Claim) -> IncomingClaim:
        claim = sanitized(claim)
        rules = self._rules.get(claim.merchant)
        if rules is None:
            claim = replace(claim, quarantine=claim.quarantine or "the merchant is not configured")
            return IncomingClaim(position=position, claim=claim, counted=False)
        counted = rules.counts(claim)
        if claim.trust is Trust.CHECKSUM and not counted:
            claim = shortened(claim)
        return IncomingClaim(position=position, claim=claim, counted=counted)

    def _record(self, connection: Connection, incoming: Sequence[IncomingClaim]) -> Collection[Decision]:
        now = self._clock()
        candidates = drop_repeats(incoming)
        by_order: dict[OrderKey, list[IncomingClaim]] = {}
        for one in candidates:
            by_order.setdefault(one.claim.order, []).append(one)

        # Most claims are about orders that do not exist yet. Those are inserted once, as the claims leave them.
        blank = {
            key: OrderRecord.unknown(key, now=now)
            for key, of_order in by_order.items()
            if any(one.counted for one in of_order)
        }
        presumed = {key: self._decide(key, order, by_order[key], now=now) for key, order in blank.items()}
        created = orders.insert_missing(connection, [one.order for one in presumed.values() if one.order])
        before: Mapping[OrderKey, OrderRecord] = {**blank, **orders.lock(connection, by_order.keys() - created)}
        decisions = {
            key: presumed[key] if key in created else self._decide(key, before.get(key), of_order, now=now)
            for key, of_order in by_order.items()
        }

        verdicts = _verdicts(decisions.values())
        known = find_repeats_without_amount(
            connection, (one for one in candidates if one.claim.order not in created), self._amount_fields
        )
        new = [one for one in candidates if one.position not in known]
        row_ids = insert_claims(connection, new, [verdicts[one.position] for one in new], now=now)
        if len(row_ids) < len(candidates):
            # Some were recorded before: decide again without them, and correct the verdicts that they changed.
            for key in {one.claim.order for one in candidates if one.position not in row_ids}:
                fresh = [one for one in by_order[key] if one.position in row_ids]
                repeated = [one for one in by_order[key] if one.position not in row_ids]
                decisions[key] = self._decide(key, before.get(key), fresh, now=now, repeated=repeated)
            corrected = _verdicts(decisions.values()).items()
            changed = {row_ids[place]: verdict for place, verdict in corrected if verdict is not verdicts[place]}
            correct_verdicts(connection, changed)

        stored = {key: presumed[key].order if key in created else before.get(key) for key in by_order}
        orders.save(connection, [one.order for key, one in decisions.items() if one.order and one.order != stored[key]])
        enqueue(connection, decisions.values(), now=now)
        close_inquiries(connection, [key for key, one in decisions.items() if one.closes_inquiry])
        open_inquiries(connection, [one.inquiry for one in decisions.values() if one.inquiry], now=now)
        return decisions.values()

    def _decide(
        self,
        key: OrderKey,
        order: OrderRecord | None,
        incoming: Iterable[IncomingClaim],
        *,
        now: datetime,
        repeated: Iterable[IncomingClaim] = (),
    ) -> Decision:
        decision = Decision(order, rules=self._rules.get(key.merchant), endpoints=self._endpoints, now=now)
        decision.take(incoming)
        decision.take_repeated(repeated)
        return decision


def _verdicts(decisions: Iterable[Decision]) -> dict[int, Verdict]:
    return {position: verdict for one in decisions for position, verdict in one.verdicts.items()}
