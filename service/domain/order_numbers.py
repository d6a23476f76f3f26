"""Order numbers: the merchants make them, so they may be nearly anything."""

import re
import unicodedata

#: The longest order number, in characters.
MAX_ORDER_NO_CHARACTERS = 128

# The first digits of bank cards by issuer (ISO/IEC 7812): American Express, Diners Club and JCB (3), Visa (4),
# Mastercard and Maestro (5, 2221 to 2720), UnionPay and Discover (6), and old cards of ICBC (9558).
_CARD = re.compile(r"(?=[0-9]{13,19}\Z)(?:3[0-9]|4|5[0-9]|6|9558|222[1-9]|22[3-9]|2[3-6]|27[01]|2720)")


def is_order_no(text: str) -> bool:
    """Whether a text can be an order number: 1 to 128 printable characters, including spaces."""
    return 0 < len(text) <= MAX_ORDER_NO_CHARACTERS and text.isprintable()


def may_be_card_number(text: str) -> bool:
    """Whether a text has the form of a bank card number: 13 to 19 digits, an issuer's range, and Luhn's check digit."""
    return _CARD.match(text) is not None and _passes_luhn(text)


def _passes_luhn(digits: str) -> bool:
    # ISO/IEC 7812-1, annex B: from the right, every second digit counts twice.
    return sum(sum(divmod(int(digit) * (1 + place % 2), 10)) for place, digit in enumerate(reversed(digits))) % 10 == 0


def is_other_spelling(one: str, other: str) -> bool:
    """Whether two texts differ only in case, width, accents or outer blanks: many databases take them for equal."""
    return one != other and _fold(one) == _fold(other)


def _fold(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(c for c in decomposed if not unicodedata.combining(c)).casefold().strip()
