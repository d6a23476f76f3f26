"""Escaping of untrusted text for a terminal."""


def escape_controls(text: str, *, keep: str = "") -> str:
    r"""Write each unprintable character as Python does (`\x1b`, `\n`), except those in `keep`."""
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)
