"""What the demo has measured: what the shop received and the ledger recorded, compared with the gateway's truth."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.demo.downstream import ReceivedEvent
from service.domain.claims import ClaimSource, OrderStatus, Trust
from service.domain.events import EventType
from service.domain.order_state import Verdict
from service.gateway.order_claims import STATUSES
from service.ledger.histories import OrderHistory

_TERMINAL_EVENTS = frozenset({EventType.SUCCEEDED, EventType.FAILED, EventType.CORRECTED})
_HARMLESS = frozenset({Verdict.UNTRUSTED, Verdict.QUARANTINED})


@dataclass(frozen=True, slots=True)
class Statement:
    """A status and the payment number that it was stated for. Every forgery states a false pair."""

    status: OrderStatus
    pay_order_no: str | None

    @classmethod
    def by_gateway(cls, pay_status: str, pay_order_no: str) -> "Statement":
        """From the gateway's spelling of the status."""
        return cls(STATUSES[pay_status], pay_order_no)


@dataclass(frozen=True, slots=True, kw_only=True)
class Falsehood:
    """A false callback: a forger's, or one of the gateway's own that contradicts its answers."""

    biz_order_no: str
    statement: Statement
    #: Whether the receiver refused it.
    refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that was seen. Mappings are by order number."""

    #: The orders that were sent.
    order_nos: Sequence[str]
    #: From the sandbox itself, once nothing was pending.
    truths: Mapping[str, Statement]
    #: What the shop received, each event once.
    events: Sequence[ReceivedEvent]
    #: From the ledger.
    histories: Mapping[str, OrderHistory]
    #: By callbacks of a good sign.
    forgeries: Sequence[Falsehood]
    #: By callbacks of the gateway itself, on the orders' own addresses.
    lies: Sequence[Falsehood]

    def wrong_orders(self) -> list[str]:
        """Orders whose last event or whose row in the ledger is missing or false."""
        last = {event.biz_order_no: event for event in sorted(self.events, key=lambda event: event.sequence)}
        wrong = []
        for order_no in self.order_nos:
            truth = self.truths.get(order_no)
            event = last.get(order_no)
            received = Statement(event.status, event.pay_order_no) if event else None
            if truth is None or received != truth or self._recorded(order_no) != truth:
                wrong.append(order_no)
        return wrong

    def missing_orders(self) -> list[str]:
        """Orders without a terminal event at the shop."""
        finished = {event.biz_order_no for event in self.events if event.type in _TERMINAL_EVENTS}
        return [order_no for order_no in self.order_nos if order_no not in finished]

    def orders_with_several_terminal_events(self) -> list[str]:
        """Orders with more than one terminal event, by their distinct event ids."""
        counts = Counter(event.biz_order_no for event in self.events if event.type in _TERMINAL_EVENTS)
        return [order_no for order_no, count in counts.items() if count > 1]

    def open_orders(self) -> list[str]:
        """Orders that the ledger does not hold to be settled."""
        return [order_no for order_no in self.order_nos if not self._settled(order_no)]

    def orders_without_callback(self) -> list[str]:
        """Orders without a callback on their own notify_url: the gateway sent none."""
        return [order_no for order_no in self.order_nos if not self._called_back(order_no)]

    def recovered_orders(self) -> list[str]:
        """Orders without a callback that an inquiry brought to their true terminal status, at the shop too."""
        wrong, missing = set(self.wrong_orders()), set(self.missing_orders())
        return [
            order_no
            for order_no in self.orders_without_callback()
            if order_no not in wrong and order_no not in missing and self._ended_by_answer(order_no)
        ]

    def count_inquiries(self) -> int:
        """How often the gateway was queried."""
        return sum(len(history.questions) for history in self.histories.values())

    def believed_forgeries(self) -> list[Falsehood]:
        """Forgeries whose statement became an event, the order's state, or a claim that counted.

        A refused forgery counts too if another one with the same statement was believed. It does not count if the
        gateway itself made the same false statement.
        """
        lied = {(lie.biz_order_no, lie.statement) for lie in self.lies}
        return [
            forgery
            for forgery in self._believed(self.forgeries)
            if not (forgery.refused and (forgery.biz_order_no, forgery.statement) in lied)
        ]

    def orders_believed_lied(self) -> list[str]:
        """Orders whose event, state or counted claim states what a false callback of the gateway stated."""
        return sorted({lie.biz_order_no for lie in self._believed(self.lies)})

    def _believed(self, falsehoods: Sequence[Falsehood]) -> list[Falsehood]:
        believed: defaultdict[str, set[Statement]] = defaultdict(set)
        for event in self.events:
            believed[event.biz_order_no].add(Statement(event.status, event.pay_order_no))
        for order_no, history in self.histories.items():
            if recorded := self._recorded(order_no):
                believed[order_no].add(recorded)
            for claim in history.claims:
                if claim.status is not None and claim.verdict not in _HARMLESS:
                    believed[order_no].add(Statement(claim.status, claim.pay_order_no))
        return [falsehood for falsehood in falsehoods if falsehood.statement in believed[falsehood.biz_order_no]]

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
            and claim.verdict.moves
            and claim.status is not None
            and claim.status.terminal
            for claim in self.histories[order_no].claims
        )

    def _recorded(self, order_no: str) -> Statement | None:
        history = self.histories.get(order_no)
        if history is None or history.order is None:
            return None
        return Statement(history.order.state.status, history.order.state.pay_order_no)
