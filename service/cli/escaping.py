"""Text that others have written, as a terminal may be given it."""


def escape_controls(text: str, *, keep: str = "") -> str:
    r"""`text` with every character that could move a cursor, or hide, written as Python writes it: `\x1b`, `\n`.

    Those in `keep` stay as they are.
    """
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)
