"""Cursors: opaque texts that name a place in a list. A caller sends the `next` of a page to get the page after it."""

import base64
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar, get_type_hints

from marshmallow import ValidationError

from service.ledger.sanitizing import escaped

_Place = TypeVar("_Place")

# The largest numbers that the ledger can store.
_LARGEST = {"txid": 2**63 - 1, "sequence": 2**31 - 1}


class Placed(Protocol):
    """An item of a list."""

    @property
    def place(self) -> tuple[Any, ...]:
        """Its place in the list: a named tuple of texts, whole numbers and aware times."""


def write_cursor(place: tuple[Any, ...]) -> str:
    """The cursor of a place."""
    values = [value.isoformat() if isinstance(value, datetime) else value for value in place]
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def next_cursor(page: Sequence[Placed], *, limit: int) -> str | None:
    """The cursor of the page after this one, of at most `limit` items; None where this one was not filled."""
    return write_cursor(page[-1].place) if len(page) == limit else None


def read_cursor(kind: Callable[..., _Place], text: str) -> _Place:
    """The place that a cursor names; `kind` is its named tuple. Raises ValidationError for any other text."""
    kinds = get_type_hints(kind)
    try:
        values = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if isinstance(values, list) and len(values) == len(kinds):
            return kind(*(_read(name, kinds[name], value) for name, value in zip(kinds, values, strict=True)))
    except (ValueError, OverflowError, RecursionError):
        pass
    raise ValidationError("is not a cursor: send the `next` of an earlier page")


def _read(name: str, kind: type, value: Any) -> object:
    """A value of a place. Raises ValueError and OverflowError for one that the ledger does not have."""
    is_of_kind = type(value) is (str if kind is datetime else kind)
    if not is_of_kind:
        raise ValueError(name)
    if kind is datetime:
        time = datetime.fromisoformat(value)
        time.astimezone(UTC)
        if time.tzinfo is None or time.isoformat() != value:
            raise ValueError(name)
        return time
    fits = 0 <= value <= _LARGEST[name] if kind is int else escaped(value) == value
    if not fits:
        raise ValueError(name)
    return value
