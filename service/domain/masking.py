"""Masking: personal data in free text is made unreadable before it is shown, sent or logged."""

import re

# Digits of any script; people group them with a single blank or hyphen.
_NUMBER = re.compile(
    r"(?<!\d)(?:"
    r"(?P<identity>\d{17}[Xx])"
    r"|(?P<mobile>1[3-9]\d[ -]?\d{4}[ -]?\d{4})"
    r"|(?P<long>\d(?:[ -]?\d){11,18})"
    r")(?!\d)"
)
_SEPARATORS = re.compile("[ -]")
# The form of a gateway's words. A name in another script, or of two parts, does not have it.
_WORD = re.compile(r"[A-Za-z0-9_.'-]+")
# In JSON, the digits of an escape may stand directly before a number.
_ESCAPE = re.compile(r"(\\u[0-9a-fA-F]{4})")


def mask_personal(text: str) -> str:
    """`text` with ID numbers (15 or 18 digits), card numbers (12 to 19) and mobile numbers masked.

    `6222021234561234` becomes `6222****1234`, `13812345678` becomes `138****5678`. All other numbers of 12 to 19 digits
    are masked too, since a number does not show what it is. Names are not masked: they cannot be found in free text.
    Masking twice changes nothing. Text may be JSON: the digits of an escape `\\uxxxx` belong to no number.
    """
    return "".join(part if _ESCAPE.fullmatch(part) else _mask_numbers(part) for part in _ESCAPE.split(text))


def mask_unknown_word(word: str, *, from_stranger: bool) -> str:
    """What may be shown of an unknown word, which may be anything, even a person's name.

    Of a word from a stranger, at most two characters at each end: `refunded` becomes `re****ed`, `张三` becomes `****`.
    A word from a proven sender is shown where it has the form of a gateway's word, masked as by `mask_personal`.
    """
    if not word:
        return ""
    kept = min(len(word) // 4, 2)
    if not _WORD.fullmatch(word):
        kept = 0
    elif not from_stranger:
        return mask_personal(word)
    return f"{word[:kept]}****{word[len(word) - kept :]}"


def escape_controls(text: str, *, keep: str = "") -> str:
    r"""Write each unprintable character as Python does (`\x1b`, `\n`), except those in `keep`."""
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


def _mask_numbers(text: str) -> str:
    # The rest of a masked number can form another one with the digits beside it. Each round leaves fewer digits.
    while (masked := _NUMBER.sub(_masked, text)) != text:
        text = masked
    return text


def _masked(match: re.Match[str]) -> str:
    digits = _SEPARATORS.sub("", match.group())
    kept = 3 if match.lastgroup == "mobile" else 4
    return f"{digits[:kept]}****{digits[-4:]}"
