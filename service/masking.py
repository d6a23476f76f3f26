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
# In JSON with escapes, the digits of one may stand right before a number.
_ESCAPE = re.compile(r"(\\u[0-9a-fA-F]{4})")


def mask_personal(text: str) -> str:
    """`text` with ID numbers (15 or 18 digits), card numbers (12 to 19) and mobile numbers masked.

    `6222021234561234` becomes `6222****1234`, `13812345678` becomes `138****5678`. Any other number of 12
    to 19 digits is masked with them, for a number does not say what it is. A name stays: names cannot be found in free
    text. Masking twice changes nothing. Text may be JSON: the digits of an escape `\\uxxxx` belong to no number.
    """
    return "".join(part if _ESCAPE.fullmatch(part) else _mask_numbers(part) for part in _ESCAPE.split(text))


def _mask_numbers(text: str) -> str:
    # What is left of one number can make another with the digits beside it. Each round leaves fewer digits.
    while (masked := _NUMBER.sub(_masked, text)) != text:
        text = masked
    return text


def _masked(match: re.Match[str]) -> str:
    digits = _SEPARATORS.sub("", match.group())
    kept = 3 if match.lastgroup == "mobile" else 4
    return f"{digits[:kept]}****{digits[-4:]}"
