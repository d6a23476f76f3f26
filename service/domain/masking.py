"""Masking: personal data in free text, made unreadable before it is shown, sent or logged."""

import re

# Digits of any script; a single blank or hyphen between two of them is how people group them.
_NUMBER = re.compile(
    r"(?<!\d)(?:"
    r"(?P<identity>\d{17}[Xx])"
    r"|(?P<mobile>1[3-9]\d[ -]?\d{4}[ -]?\d{4})"
    r"|(?P<long>\d(?:[ -]?\d){11,18})"
    r")(?!\d)"
)
_SEPARATORS = re.compile("[ -]")
# What a gateway's word may look like; a name in another script, or of two parts, does not.
_WORD = re.compile(r"[A-Za-z0-9_.'-]+")
# In JSON with escapes, the digits of one may stand right before a number.
_ESCAPE = re.compile(r"(\\u[0-9a-fA-F]{4})")


def mask_personal(text: str) -> str:
    """`text` with ID numbers (15 or 18 digits), card numbers (12 to 19) and mobile numbers masked.

    `6222021234561234` becomes `6222****1234`, `13812345678` becomes `138****5678`. Any other number of 12
    to 19 digits is masked with them, for a number does not say what it is. A name stays: names cannot be found in free
    text. Masking twice changes nothing. Text may be JSON: the digits of an escape `\\uxxxx` belong to no number.
    """
    return "".join(part if _ESCAPE.fullmatch(part) else _mask_numbers(part) for part in _ESCAPE.split(text))


def mask_unknown_word(word: str, *, from_stranger: bool) -> str:
    """What may be shown of a word that is none of those that are known: it may be anything, a person's name too.

    Of a stranger's no more than two characters at each end: `refunded` becomes `re****ed`, `张三` becomes `****`. One
    whose sender is proven is shown where it looks like a word of a gateway, its numbers masked as `mask_personal` does.
    """
    if not word:
        return ""
    kept = min(len(word) // 4, 2)
    if not _WORD.fullmatch(word):
        kept = 0
    elif not from_stranger:
        return mask_personal(word)
    return f"{word[:kept]}****{word[len(word) - kept :]}"


def _mask_numbers(text: str) -> str:
    # What is left of one number can make another with the digits beside it. Each round leaves fewer digits.
    while (masked := _NUMBER.sub(_masked, text)) != text:
        text = masked
    return text


def _masked(match: re.Match[str]) -> str:
    digits = _SEPARATORS.sub("", match.group())
    kept = 3 if match.lastgroup == "mobile" else 4
    return f"{digits[:kept]}****{digits[-4:]}"
