"""What the inquirer needs of a merchant's gateway."""

from dataclasses import dataclass
from typing import Protocol

from service.domain.claims import Claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The gateway's answer to one question."""

    #: What it says of the order, stated when it was asked; None where it knows of no such order.
    claim: Claim | None
    request_id: str
    #: Why it knows of none, for people; quotes no personal data.
    detail: str = ""


class NoAnswer(Exception):
    """Nothing came that says anything of the order. The message says why, for people, and quotes no personal data."""

    def __init__(self, reason: str, *, request_id: str = "") -> None:
        super().__init__(reason)
        #: What to name when asking the gateway's people; "" where no request was made.
        self.request_id = request_id


class Gateway(Protocol):
    """One merchant's gateway. Safe to share between threads."""

    def ask(self, biz_order_no: str) -> Answer:
        """Ask about an order exactly once, within the gateway's time limit. Raises NoAnswer."""
