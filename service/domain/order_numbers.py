"""Order numbers: the merchants make them, so they may be nearly anything."""

import unicodedata

#: The longest order number, in characters.
MAX_ORDER_NO_CHARACTERS = 128


def is_order_no(text: str) -> bool:
    """Whether a text can be an order number: 1 to 128 printable characters, including spaces."""
    return 0 < len(text) <= MAX_ORDER_NO_CHARACTERS and text.isprintable()


def is_other_spelling(one: str, other: str) -> bool:
    """Whether two texts differ only in case, width, accents or outer blanks: many databases take them for equal."""
    return one != other and _fold(one) == _fold(other)


def _fold(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(c for c in decomposed if not unicodedata.combining(c)).casefold().strip()
