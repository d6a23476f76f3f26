"""What the demo has measured: the shop's and the ledger's word against the gateway's truth."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.claims import OrderStatus
from service.cli.demo_downstream import ReceivedEvent
from service.events import EventType
from service.ledger.histories import OrderHistory
from service.ledger.states import Verdict

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
    #: What forgers claimed, by callbacks of a good sign.
    forgeries: Sequence[tuple[str, Said]]

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

    def believed_forgeries(self) -> list[tuple[str, Said]]:
        """Forgeries whose words became an event, the order's state, or a claim that counted.

        A forgery that was refused counts too where another one with the same words was believed.
        """
        believed: defaultdict[str, set[Said]] = defaultdict(set)
        for event in self.events:
            believed[event.biz_order_no].add(Said(event.status, event.pay_order_no))
        for order_no, history in self.histories.items():
            if recorded := self._recorded(order_no):
                believed[order_no].add(recorded)
            for claim in history.claims:
                if claim.status is not None and claim.verdict not in _HARMLESS:
                    believed[order_no].add(Said(claim.status, claim.pay_order_no))
        return [(order_no, said) for order_no, said in self.forgeries if said in believed[order_no]]

    def _recorded(self, order_no: str) -> Said | None:
        history = self.histories.get(order_no)
        if history is None or history.order is None:
            return None
        return Said(history.order.state.status, history.order.state.pay_order_no)
