"""Bodies of queue messages: JSON objects, written so that every queue takes them and read field by field, strictly."""

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from enum import StrEnum
from typing import TypeVar

from service.domain.claims import Trust
from service.messaging.errors import UndecodableMessage

_Member = TypeVar("_Member", bound=StrEnum)
_TRUSTS = {trust.word: trust for trust in Trust}
#: What every database can count to.
_LARGEST_COUNT = 2**63 - 1


_write_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def write_body(fields: Mapping[str, object]) -> bytes:
    """The fields as JSON in ASCII: no character of a callback, a lone surrogate say, must keep it from the queue."""
    return _write_json(fields).encode("ascii")


def parse_body(body: bytes) -> Mapping[str, object]:
    """The fields of a body. Raises `UndecodableMessage` where it is no JSON object."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UndecodableMessage(f"body is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise UndecodableMessage(f"body is a JSON {type(parsed).__name__}; it must be an object")
    return parsed


class BodyFields:
    """The fields of a decoded body, each read as exactly one type.

    Every method raises `UndecodableMessage`, which names the field and what was wrong with it, but quotes no value.
    """

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def text(self, name: str) -> str:
        """A string, maybe an empty one."""
        value = self._value(name)
        if not isinstance(value, str):
            raise _wrong(name, "a string", value)
        return value

    def filled_text(self, name: str) -> str:
        """A string of one character or more."""
        value = self.text(name)
        if not value:
            raise _wrong(name, "a string that is not empty", value)
        return value

    def optional_text(self, name: str) -> str | None:
        """A string, or null."""
        return None if self._value(name) is None else self.text(name)

    def texts(self, name: str) -> Mapping[str, str]:
        """An object of strings."""
        value = self._value(name)
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            raise _wrong(name, "an object of strings", value)
        return value

    def names(self, name: str) -> Sequence[str]:
        """An array of strings that are not empty; empty where the field is missing."""
        value = self._values.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise _wrong(name, "an array of strings that are not empty", value)
        return tuple(value)

    def each(self, name: str) -> Sequence["BodyFields"]:
        """An array of objects."""
        value = self._value(name)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise _wrong(name, "an array of objects", value)
        return [BodyFields(item) for item in value]

    def count(self, name: str) -> int:
        """A whole number of at least 1."""
        value = self._value(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST_COUNT:
            raise _wrong(name, f"a whole number from 1 to {_LARGEST_COUNT}", value)
        return value

    def day(self, name: str) -> date:
        """A date of the calendar, YYYY-MM-DD."""
        text = self.text(name)
        try:
            day = date.fromisoformat(text)
        except ValueError as error:
            raise _wrong(name, "a date, YYYY-MM-DD", text) from error
        if day.isoformat() != text:
            raise _wrong(name, "a date, YYYY-MM-DD", text)
        return day

    def moment(self, name: str) -> datetime:
        """A time with its offset from UTC."""
        text = self.text(name)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise _wrong(name, "an ISO 8601 time", text) from error
        if moment.utcoffset() is None:
            raise _wrong(name, "a time with its offset from UTC", text)
        return moment

    def optional_moment(self, name: str) -> datetime | None:
        """A time with its offset from UTC, or null."""
        return None if self._value(name) is None else self.moment(name)

    def member(self, name: str, kind: type[_Member]) -> _Member:
        """A member of `kind`, by its word."""
        text = self.text(name)
        try:
            return kind(text)
        except ValueError as error:
            raise _wrong(name, f"one of {', '.join(kind)}", text) from error

    def optional_member(self, name: str, kind: type[_Member]) -> _Member | None:
        """A member of `kind`, or null."""
        return None if self._value(name) is None else self.member(name, kind)

    def trust(self, name: str) -> Trust:
        """A trust, by its word."""
        text = self.text(name)
        if text not in _TRUSTS:
            raise _wrong(name, f"one of {', '.join(_TRUSTS)}", text)
        return _TRUSTS[text]

    def _value(self, name: str) -> object:
        try:
            return self._values[name]
        except KeyError as error:
            raise UndecodableMessage(f"field {name!r} is missing") from error


def _wrong(name: str, expected: str, found: object) -> UndecodableMessage:
    # The kind and not the value: this reason is logged and stored, and values may be personal.
    if found is None:
        kind = "null"
    elif isinstance(found, str):
        kind = "another string" if found else "an empty string"
    else:
        kind = f"a JSON {type(found).__name__}"
    return UndecodableMessage(f"field {name!r} must be {expected}; found {kind}")
