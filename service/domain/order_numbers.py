"""What an order number may be: the merchant's own, so nearly anything."""

import unicodedata

#: The longest order number, in characters.
MAX_ORDER_NO_CHARACTERS = 128


def is_order_no(text: str) -> bool:
    """Whether a text can be an order number: 1 to 128 printable characters, a space being one of them."""
    return 0 < len(text) <= MAX_ORDER_NO_CHARACTERS and text.isprintable()


def is_other_spelling(one: str, other: str) -> bool:
    """Whether two texts differ in case, width, accents or outer blanks alone: to many a database they are the same."""
    return one != other and _fold(one) == _fold(other)


def _fold(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(c for c in decomposed if not unicodedata.combining(c)).casefold().strip()
