"""Refusals: callbacks that the receiver refused. The ledger gets only their numbers."""

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalCount:
    """How many callbacks one process of the receiver has refused so far, for one reason on one day.

    A process's count only grows, so the larger of two is the newer: repeated, late and reordered messages are harmless.
    """

    #: Slug of the merchant, from the address; "" where it names no configured merchant.
    merchant: str
    #: In the merchant's time zone; in UTC where there is no merchant.
    day: date
    #: A constant word, as in the receiver's metrics and log.
    reason: str
    #: Unique for the life of the process.
    process: str
    #: At least 1.
    callbacks: int
