"""Rules: what the ledger must know of merchants and endpoints, handed in from the settings."""

from dataclasses import dataclass
from datetime import UTC, tzinfo

from service.domain.claims import Claim, Trust
from service.domain.events import EventType, PaymentEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class MerchantRules:
    """What one merchant requires of claims, and how long its orders are asked for."""

    #: Claims below it change nothing.
    required_trust: Trust
    #: Whether the gateway can be asked at all; without credentials no inquiry is opened.
    can_ask: bool
    #: How long an order may go without a terminal status before it is asked for, unless its announcement says when.
    answer_due_seconds: float
    #: How long an order is asked for before its inquiry is parked.
    inquiry_horizon_seconds: float
    #: What its events write `paid_at` in, whatever zone a claim or the database has it in.
    time_zone: tzinfo = UTC

    def counts(self, claim: Claim) -> bool:
        """Whether the claim can be read and is trusted enough to change its order."""
        return claim.quarantine is None and claim.status is not None and claim.trust >= self.required_trust


@dataclass(frozen=True, slots=True, kw_only=True)
class InquiryRules:
    """How often one merchant's gateway may be asked."""

    #: The least time between two questions about one order.
    least_interval_seconds: float
    #: The most questions about one order in a day (UTC).
    most_per_day: int
    #: The most questions about all orders, by all processes together.
    most_per_minute: float
    #: The share of both that anyone's reasons cannot take: it is kept for what orders are owed. Between 0 and 1.
    overdue_share: float
    #: Backoff while no answer settles an order: the first wait, which doubles up to the most.
    first_repeat_seconds: float
    most_repeat_seconds: float

    @property
    def most_doubts_per_day(self) -> int:
        """The most questions about one order in a day for anyone's reasons; at least one."""
        return max(1, int(self.most_per_day * (1 - self.overdue_share)))

    @property
    def most_doubts_per_minute(self) -> float:
        """The most questions about all orders for anyone's reasons."""
        return self.most_per_minute * (1 - self.overdue_share)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRules:
    """Which events one downstream endpoint receives."""

    name: str
    types: frozenset[EventType]
    #: None means every merchant.
    merchants: frozenset[str] | None = None

    def wants(self, event: PaymentEvent, *, ends_dispute_only: bool) -> bool:
        """Whether the endpoint receives `event`.

        `ends_dispute_only` is a correction that corrects nothing but the doubt: who never hears of conflicts has no
        use for it.
        """
        if self.merchants is not None and event.merchant not in self.merchants:
            return False
        if ends_dispute_only and EventType.CONFLICTED not in self.types:
            return False
        return event.type in self.types
