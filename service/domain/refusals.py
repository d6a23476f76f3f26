"""Refusals: callbacks that were turned away at the door, so that all the ledger ever hears of them is how many."""

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalCount:
    """How many callbacks one process of the receiver has refused for one reason on one day, so far.

    It only ever grows, so of two counts by the same process the larger one is the newer one: told twice, late or out
    of order, they come to the same.
    """

    #: Slug of the merchant, from the address; "" where that names none that is configured.
    merchant: str
    #: In the merchant's own time zone; UTC where there is none.
    day: date
    #: A constant word, as in the receiver's metric and log.
    reason: str
    #: Names the process for as long as it lives.
    process: str
    #: At least 1.
    callbacks: int
