"""What the demo has measured: the shop's and the ledger's word against the gateway's truth."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.demo.downstream import ReceivedEvent
from service.domain.claims import ClaimSource, OrderStatus, Trust
from service.domain.events import EventType
from service.domain.order_state import Verdict
from service.ledger.histories import OrderHistory

#: The gateway's spelling, which ends here.
_STATUSES = {
    "initial": OrderStatus.INITIAL,
    "pending": OrderStatus.PROCESSING,
    "wait_pay": OrderStatus.PROCESSING,
    "success": OrderStatus.SUCCEEDED,
    "fail": OrderStatus.FAILED,
}
_TERMINAL_EVENTS = frozenset({EventType.SUCCEEDED, EventType.FAILED, EventType.CORRECTED})
_HARMLESS = frozenset({Verdict.UNTRUSTED, Verdict.QUARANTINED})
_MOVED = frozenset({Verdict.APPLIED, Verdict.CORRECTED})


@dataclass(frozen=True, slots=True)
class Said:
    """A status together with the payment number that it was said of: every forgery's pair is false."""

    status: OrderStatus
    pay_order_no: str | None

    @classmethod
    def by_gateway(cls, pay_status: str, pay_order_no: str) -> "Said":
        """From the gateway's own words."""
        return cls(_STATUSES[pay_status], pay_order_no)


@dataclass(frozen=True, slots=True, kw_only=True)
class Falsehood:
    """A false callback: a forger's, or one of the gateway's own that contradicts its answers."""

    biz_order_no: str
    said: Said
    #: Whether the receiver would not have it.
    refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that was seen; by order number where it is a mapping."""

    #: The orders that were sent.
    order_nos: Sequence[str]
    #: From the sandbox itself, once nothing was pending.
    truths: Mapping[str, Said]
    #: What the shop received, each event once.
    events: Sequence[ReceivedEvent]
    #: From the ledger.
    histories: Mapping[str, OrderHistory]
    #: By callbacks of a good sign.
    forgeries: Sequence[Falsehood]
    #: By callbacks of the gateway itself, on the orders' own addresses.
    lies: Sequence[Falsehood]

    def wrong_orders(self) -> list[str]:
        """Orders whose last event, or whose row in the ledger, does not say the truth; those without any, too."""
        last = {event.biz_order_no: event for event in sorted(self.events, key=lambda event: event.sequence)}
        wrong = []
        for order_no in self.order_nos:
            truth = self.truths.get(order_no)
            event = last.get(order_no)
            heard = Said(event.status, event.pay_order_no) if event else None
            if truth is None or heard != truth or self._recorded(order_no) != truth:
                wrong.append(order_no)
        return wrong

    def missing_orders(self) -> list[str]:
        """Orders of which the shop never heard a terminal status."""
        told = {event.biz_order_no for event in self.events if event.type in _TERMINAL_EVENTS}
        return [order_no for order_no in self.order_nos if order_no not in told]

    def orders_told_twice(self) -> list[str]:
        """Orders with more than one terminal event, by their distinct event ids."""
        counts = Counter(event.biz_order_no for event in self.events if event.type in _TERMINAL_EVENTS)
        return [order_no for order_no, count in counts.items() if count > 1]

    def open_orders(self) -> list[str]:
        """Orders that the ledger itself does not hold to be at an undisputed end."""
        return [order_no for order_no in self.order_nos if not self._settled(order_no)]

    def silent_orders(self) -> list[str]:
        """Orders of which the ledger has no callback on their own address: none of the gateway's ever came."""
        return [order_no for order_no in self.order_nos if not self._called_back(order_no)]

    def recovered_orders(self) -> list[str]:
        """Silent orders that came to their true end, told to the shop, by an answer of the gateway's."""
        wrong, missing = set(self.wrong_orders()), set(self.missing_orders())
        return [
            order_no
            for order_no in self.silent_orders()
            if order_no not in wrong and order_no not in missing and self._ended_by_answer(order_no)
        ]

    def questions(self) -> int:
        """How often the gateway was asked."""
        return sum(len(history.questions) for history in self.histories.values())

    def believed_forgeries(self) -> list[Falsehood]:
        """Forgeries whose words became an event, the order's state, or a claim that counted.

        A forgery that was refused counts too where another one with the same words was believed, but not where it only
        says what the gateway itself lied.
        """
        lied = {(lie.biz_order_no, lie.said) for lie in self.lies}
        return [
            forgery
            for forgery in self._believed(self.forgeries)
            if not (forgery.refused and (forgery.biz_order_no, forgery.said) in lied)
        ]

    def orders_believed_lied(self) -> list[str]:
        """Orders of which a lie of the gateway's became an event, the state, or a claim that counted."""
        return sorted({lie.biz_order_no for lie in self._believed(self.lies)})

    def _believed(self, falsehoods: Sequence[Falsehood]) -> list[Falsehood]:
        believed: defaultdict[str, set[Said]] = defaultdict(set)
        for event in self.events:
            believed[event.biz_order_no].add(Said(event.status, event.pay_order_no))
        for order_no, history in self.histories.items():
            if recorded := self._recorded(order_no):
                believed[order_no].add(recorded)
            for claim in history.claims:
                if claim.status is not None and claim.verdict not in _HARMLESS:
                    believed[order_no].add(Said(claim.status, claim.pay_order_no))
        return [falsehood for falsehood in falsehoods if falsehood.said in believed[falsehood.biz_order_no]]

    def _settled(self, order_no: str) -> bool:
        history = self.histories.get(order_no)
        return history is not None and history.order is not None and history.order.settled

    def _called_back(self, order_no: str) -> bool:
        # Nobody but the gateway was given the address, so no forgery is among these.
        history = self.histories.get(order_no)
        return history is not None and any(
            claim.source is ClaimSource.CALLBACK and claim.trust is Trust.CAPABILITY for claim in history.claims
        )

    def _ended_by_answer(self, order_no: str) -> bool:
        return any(
            claim.source is ClaimSource.QUERY
            and claim.verdict in _MOVED
            and claim.status is not None
            and claim.status.terminal
            for claim in self.histories[order_no].claims
        )

    def _recorded(self, order_no: str) -> Said | None:
        history = self.histories.get(order_no)
        if history is None or history.order is None:
            return None
        return Said(history.order.state.status, history.order.state.pay_order_no)
