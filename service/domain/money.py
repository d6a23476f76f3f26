"""Amounts of money, exact."""

import re
from dataclasses import dataclass
from decimal import Decimal

#: The units in which amounts are written, and how many fen each one has.
UNITS = {"yuan": 100, "fen": 1}
# No longer than what Decimal multiplies without rounding.
_EXACT = re.compile(r"[0-9]{1,16}(?:\.[0-9]{1,10})?")


@dataclass(frozen=True, slots=True, eq=False)
class Money:
    """An amount as somebody wrote it. Two are equal if they are the same money, in whatever unit each is written."""

    #: An exact decimal number in `unit`, such as "100.00".
    text: str
    #: "yuan" or "fen".
    unit: str

    @property
    def fen(self) -> Decimal:
        """The amount in fen. Raises decimal.InvalidOperation for a text that is no number."""
        return Decimal(self.text) * UNITS[self.unit]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Money):
            return NotImplemented
        return (self.text, self.unit) == (other.text, other.unit) or self.fen == other.fen

    def __hash__(self) -> int:
        return hash(self.fen)

    def to(self, unit: str) -> "Money":
        """The same money in this unit: itself, or else whole fen, or yuan with two decimals."""
        if unit == self.unit:
            return self
        return Money(f"{self.fen / UNITS[unit]:.{2 if unit == 'yuan' else 0}f}", unit)


def read_money(text: str, unit: str) -> Money | None:
    """The amount that `text` states in `unit`; None if it is no plain decimal number of whole fen.

    A sign, an exponent, a separator of thousands, a currency or a fraction of a fen make it unreadable: whoever guesses
    what is meant may change it. The result is in whole fen, or in yuan with two decimals.
    """
    if not _EXACT.fullmatch(written := text.strip()):
        return None
    fen = Money(written, unit).fen
    return Money(f"{fen:.0f}", "fen").to(unit) if fen == fen.to_integral_value() else None
