"""What an order number may be: the merchant's own, so nearly anything."""

#: The longest order number, in characters.
MAX_ORDER_NO_CHARACTERS = 128


def is_order_no(text: str) -> bool:
    """Whether a text can be an order number: 1 to 128 printable characters, a space being one of them."""
    return 0 < len(text) <= MAX_ORDER_NO_CHARACTERS and text.isprintable()
