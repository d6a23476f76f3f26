"""Texts that signs are made over, as they are shown: masked, and with their first difference marked."""

import re
from dataclasses import dataclass

from rich.text import Text

from service.cli.escaping import escape_controls
from service.domain.masking import mask_personal
from service.runtime.logs import SENSITIVE_FIELDS

_BEFORE, _AFTER = 20, 40
_MARK = "»"
_MARKED = "bold red"
# A field of that name with its whole value, in any JSON dialect.
_SENSITIVE = re.compile(rf'("(?:{"|".join(sorted(SENSITIVE_FIELDS))})"\s*:\s*)(?:"(?:[^"\\]|\\.)*"|[^",{{}}\[\]]+)')


class Shown:
    """How texts are shown."""

    def __init__(self, *, unmasked: bool) -> None:
        self._unmasked = unmasked

    def text(self, canonical: str) -> str:
        """The text as it may be seen; white space at its ends and control characters are made visible."""
        return escape_controls(canonical if self._unmasked else mask_personal(_SENSITIVE.sub(r'\1"…"', canonical)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Where two texts part, on either side."""

    left: Text
    right: Text


def first_difference(left: str, right: str) -> Difference | None:
    """What stands around the first difference of two texts; None where they are equal."""
    if left == right:
        return None
    place = next((at for at, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1]), None)
    if place is None:
        place = min(len(left), len(right))
    return Difference(left=_excerpt(left, place), right=_excerpt(right, place))


def _excerpt(text: str, place: int) -> Text:
    start, end = max(0, place - _BEFORE), place + _AFTER
    excerpt = Text("…" if start else "")
    excerpt.append(text[start:place])
    excerpt.append(_MARK, style=_MARKED)
    excerpt.append(text[place : place + 1] or "(its end)", style=_MARKED)
    excerpt.append(text[place + 1 : end])
    excerpt.append("…" if end < len(text) else "")
    return excerpt
