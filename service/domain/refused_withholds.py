"""Rules that end orders whose withhold the gateway refused with -1. No I/O, no clock.

A -1 proves nothing: some gateways charge all the same. The reasons for the rules, and why they cause no double charge:
`docs/decisions/0018-refused-withholds-end-by-rule.md`.
"""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256

from service.domain.claims import Claim, ClaimSource, OrderKey, OrderStatus, Trust


class RefusalRule(StrEnum):
    """A rule by which an order ends; events name it."""

    #: The gateway refused with a message that, as the operator knows, it uses only for what it has not done.
    MESSAGE = "refusal-message"
    #: After the -1, the gateway answered often enough, and for long enough, that it does not have the order.
    NOT_FOUND = "not-found"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalRules:
    """The rules that one merchant's operator has switched on."""

    #: Whole messages.
    messages: Collection[str]
    #: How many answers "not found" end an order; None: they never do.
    not_found_times: int | None
    #: How long these answers take at least, from the refusal on.
    not_found_hours: float
    #: The most orders that the rules end in an hour.
    max_per_hour: int

    @property
    def usual_duration(self) -> timedelta:
        """How long the answers "not found" usually take, at most. An order that is still open then needs a person."""
        return 2 * timedelta(hours=self.not_found_hours)

    def choose(self, message: str) -> RefusalRule | None:
        """The rule for a withhold that was refused with `message`; None where no rule is on for it."""
        if message in self.messages:
            return RefusalRule.MESSAGE
        return None if self.not_found_times is None else RefusalRule.NOT_FOUND

    def is_absent(self, *, refused_at: datetime, not_found_at: Iterable[datetime]) -> bool:
        """Whether the gateway was asked often enough: `not_found_at` are the times of questions answered "not found".

        A question counts if it was asked at least an even share of the hours after the last that counted, and the first
        one after the refusal. Sooner ones neither count nor do harm.
        """
        if self.not_found_times is None:
            return False
        share = timedelta(hours=self.not_found_hours) / self.not_found_times
        counted, last = 0, refused_at
        for asked_at in sorted(not_found_at):
            if asked_at - last >= share:
                counted, last = counted + 1, asked_at
        return counted >= self.not_found_times

    def explain(self, rule: RefusalRule) -> str:
        """Why the rule ends an order, in words."""
        if rule is RefusalRule.MESSAGE:
            return "the gateway refused the withhold with one of the merchant's refused_withholds.messages"
        return (
            "the gateway refused the withhold, and answered at least "
            f"{self.not_found_times} times in {self.not_found_hours:g} hours that it does not have the order"
        )


def claim_from_rule(order: OrderKey, rule: RefusalRule, *, reason: str, stated_at: datetime) -> Claim:
    """What the rule says of the order: that it failed. `reason` is in words; `stated_at` is aware."""
    return Claim(
        merchant=order.merchant,
        biz_order_no=order.biz_order_no,
        trust=Trust.RULE,
        source=ClaimSource.RULE,
        status=OrderStatus.FAILED,
        stated_at=stated_at,
        digest=sha256(json.dumps(["rule-v1", rule.value]).encode()).hexdigest(),
        stated_by=rule.value,
        reason=reason,
    )
