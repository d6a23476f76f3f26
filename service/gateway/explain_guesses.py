"""What else may have been signed: changes of a callback's fields under which its sign would fit.

For a person's eyes. The receiver accepts none of them: a sign that leaves out a field does not vouch for it.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import md5

from service.gateway.budget import Budget
from service.gateway.canonical import rewritings
from service.gateway.strict_json import JsonValue, NumberToken

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FittingGuess:
    """A change with which the sign fits."""

    #: In plain words; quotes no values.
    what: str
    dialect: str


def guess_what_was_signed(fields: Mapping[str, JsonValue], claimed: str) -> FittingGuess | None:
    """The first change of the fields (their sign left out) with which `claimed`, lower-case hex, fits in a dialect."""
    for what, changed in _changes(fields):
        if changed == fields:
            continue
        for dialect, canonical in rewritings(changed, Budget(texts=sys.maxsize, bytes=sys.maxsize)):
            if md5(canonical).hexdigest() == claimed:
                return FittingGuess(what=what, dialect=dialect)
    return None


def _changes(fields: Mapping[str, JsonValue]) -> Iterator[tuple[str, Mapping[str, JsonValue]]]:
    yield "fields that are empty were left out", _keep(fields, lambda value: value not in ("", None, [], {}))
    yield "fields that are null were left out", _keep(fields, lambda value: value is not None)
    yield "null was signed as an empty string", _map(fields, lambda value: "" if value is None else value)
    yield "an empty string was signed as null", _map(fields, lambda value: None if value == "" else value)
    yield "digits in quotes were signed as numbers", _map(fields, _unquote)
    yield "numbers were signed as strings", _map(fields, _quote)
    yield "an empty object was signed as []", _map(fields, lambda value: [] if value == {} else value)
    yield "white space at the ends of values was cut before signing", _map(fields, _strip)
    yield "a + was signed where the form has a blank", _map(fields, lambda value: _swap(value, " ", "+"))
    yield "a blank was signed where the body has a +", _map(fields, lambda value: _swap(value, "+", " "))
    for name in fields:
        others = {other: value for other, value in fields.items() if other != name}
        yield f"the field {name} was not signed; perhaps something on the way has added it", others


def _keep(fields: Mapping[str, JsonValue], wanted: Callable[[JsonValue], bool]) -> Mapping[str, JsonValue]:
    return {name: value for name, value in fields.items() if wanted(value)}


def _map(fields: Mapping[str, JsonValue], change: Callable[[JsonValue], JsonValue]) -> Mapping[str, JsonValue]:
    return {name: change(value) for name, value in fields.items()}


def _unquote(value: JsonValue) -> JsonValue:
    return NumberToken(value) if isinstance(value, str) and _INTEGER.fullmatch(value) else value


def _quote(value: JsonValue) -> JsonValue:
    return value.text if isinstance(value, NumberToken) else value


def _strip(value: JsonValue) -> JsonValue:
    return value.strip() if isinstance(value, str) else value


def _swap(value: JsonValue, old: str, new: str) -> JsonValue:
    return value.replace(old, new) if isinstance(value, str) else value
