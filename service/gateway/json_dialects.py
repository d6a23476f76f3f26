"""How each language writes an object as JSON: the writer's spelling, and the order of the keys.

Each writer is described by its differences from Python's own C encoder, which does the work. If a rule is not obvious,
the runtime that was measured is named. Key orders agree on ASCII words without digits, which is all that the document
uses; they differ on numbers and rare characters.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cmp_to_key
from json.encoder import encode_basestring, encode_basestring_ascii

from service.gateway.bodies import JsonValue, NumberToken
from service.gateway.errors import DialectInvalid

_JS_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")
_JS_LARGEST_INDEX = 2**32 - 2
_PHP_SPACE = r"[ \t\n\r\v\f]*+"
_PHP_NUMBER = re.compile(rf"{_PHP_SPACE}([+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?){_PHP_SPACE}")
#: A longer key is compared as text.
_PHP_LONGEST_NUMBER = 64


class KeyOrder(StrEnum):
    """A way of sorting keys."""

    #: PHP's ksort with SORT_STRING, Go's maps, Python's sort_keys.
    BYTES = "bytes"
    #: Java's TreeMap and JavaScript's sort.
    UTF16 = "utf16"
    #: JavaScript's objects: array indexes first, by number, then the rest by UTF-16 units.
    JAVASCRIPT = "javascript"
    #: PHP's plain ksort since 8.2: two numbers by value, anything else as text.
    PHP = "php"
    #: Not sorted.
    AS_SENT = "as-sent"

    def sort(self, names: Iterable[str]) -> list[str]:
        """The names in this order. The sort is stable."""
        return _KEY_ORDERS[self][0](names)

    @property
    def description(self) -> str:
        """The order in plain words."""
        return _KEY_ORDERS[self][1]


def _by_utf16(names: Iterable[str]) -> list[str]:
    return sorted(names, key=_utf16_units)


def _utf16_units(name: str) -> bytes:
    return name.encode("utf-16-be", "surrogatepass")


def _like_javascript(names: Iterable[str]) -> list[str]:
    def rank(name: str) -> tuple[int, int, bytes]:
        if _JS_INDEX.fullmatch(name) and int(name) <= _JS_LARGEST_INDEX:
            return 0, int(name), b""
        return 1, 0, _utf16_units(name)

    return sorted(names, key=rank)


def _like_php(names: Iterable[str]) -> list[str]:
    # Compared in pairs, as PHP does: "10" is compared with "9.5" as a number, and with "9a" as text.
    numbers = {name: _php_number(name) for name in names}

    def compare(left: str, right: str) -> int:
        left_number, right_number = numbers[left], numbers[right]
        if left_number is not None and right_number is not None:
            return (left_number > right_number) - (left_number < right_number)
        return (left > right) - (left < right)

    return sorted(numbers, key=cmp_to_key(compare))


def _php_number(name: str) -> int | float | None:
    match = _PHP_NUMBER.fullmatch(name) if len(name) <= _PHP_LONGEST_NUMBER else None
    if match is None:
        return None
    text = match.group(1)
    return int(text) if text.lstrip("+-").isdigit() else float(text)


# The function and the description of each. Python compares strings by code points, which is the order of their UTF-8
# bytes.
_KEY_ORDERS: dict[KeyOrder, tuple[Callable[[Iterable[str]], list[str]], str]] = {
    KeyOrder.BYTES: (sorted, "keys sorted by their bytes"),
    KeyOrder.UTF16: (_by_utf16, "keys sorted by UTF-16 units, as Java does"),
    KeyOrder.JAVASCRIPT: (_like_javascript, "keys sorted as JavaScript's objects are, numbers first"),
    KeyOrder.PHP: (_like_php, "keys sorted by PHP's ksort without SORT_STRING"),
    KeyOrder.AS_SENT: (list, "keys as they were sent, not sorted"),
}


# An escaped backslash. Texts are split at it before escapes are searched: a "u0008" after it is not an escape.
_BACKSLASH = "\\\\"
# The bytes that no writer escapes.
_PLAIN_BYTES = bytes(byte for byte in range(0x20, 0x7F) if byte not in b"\"\\\\/<>&='")
_PLAIN = re.compile(f"[{re.escape(_PLAIN_BYTES.decode())}]*+")
# `\\uxxxx`, for one unit of UTF-16.
_LONGEST_ESCAPE = 6
# What a key or value costs besides its characters: quotes or brackets, comma or colon, and a share for its time.
_BYTES_OF_EACH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonWriter:
    """How one JSON library writes. Numbers are written as their token: no library's number format is imitated."""

    #: What settings, logs and metrics call it.
    name: str
    #: What it is, for people.
    description: str
    #: Whether all non-ASCII characters are written as `\\uxxxx`.
    ascii_only: bool = False
    #: Characters that Python does not escape, with their escapes. None of them may occur within an escape.
    escapes: tuple[tuple[str, str], ...] = ()
    #: Characters that Python escapes differently: the character, Python's escape, this writer's spelling.
    respells: tuple[tuple[str, str, str], ...] = ()
    #: Runs of non-ASCII characters that this writer escapes if it is not `ascii_only`.
    escaped_runs: re.Pattern[str] | None = None
    #: Whether the hex digits of `\\uxxxx` are upper case.
    upper_hex: bool = False
    item_separator: str = ","
    key_separator: str = ":"
    #: Whether members that are null are left out.
    drops_nulls: bool = False

    def write(self, value: JsonValue, nested_order: KeyOrder = KeyOrder.AS_SENT) -> str:
        """The value as JSON, with the objects in it sorted by `nested_order`."""
        match value:
            case str():
                return self.write_string(value)
            case NumberToken():
                return value.text
            case None:
                return "null"
            case bool():
                return "true" if value else "false"
            case list():
                return f"[{self.item_separator.join([self.write(item, nested_order) for item in value])}]"
            case dict():
                members = self.write_members(value, nested_order)
                return self.join([members[name] for name in nested_order.sort(members)])

    def write_members(self, values: Mapping[str, JsonValue], nested_order: KeyOrder) -> dict[str, str]:
        """Each member with its key, in the given order."""
        return {
            name: f"{self.write_string(name)}{self.key_separator}{self.write(value, nested_order)}"
            for name, value in values.items()
            if not (self.drops_nulls and value is None)
        }

    def join(self, members: list[str]) -> str:
        """An object of members that `write_members` has written."""
        return f"{{{self.item_separator.join(members)}}}"

    def write_string(self, text: str) -> str:
        """The string with its quotes and escapes; lone surrogates stay as they are unless `ascii_only`."""
        if _PLAIN.fullmatch(text):
            return f'"{text}"'
        quoted = encode_basestring_ascii(text) if self.ascii_only else encode_basestring(text)
        for character, escape in self.escapes:
            quoted = quoted.replace(character, escape)
        if self.escaped_runs is not None:
            quoted = self.escaped_runs.sub(_escape_run, quoted)
        for character, escape, spelling in self.respells:
            if character in text:
                quoted = _BACKSLASH.join([part.replace(escape, spelling) for part in quoted.split(_BACKSLASH)])
        if self.upper_hex and "\\u" in quoted:
            quoted = _BACKSLASH.join([_raise_hex(part) for part in quoted.split(_BACKSLASH)])
        return quoted


def _escape_run(run: re.Match[str]) -> str:
    return encode_basestring_ascii(run[0])[1:-1]


def _raise_hex(part: str) -> str:
    before, *escapes = part.split("\\u")
    return "\\u".join([before, *(escape[:4].upper() + escape[4:] for escape in escapes)])


def max_bytes(value: JsonValue) -> int:
    """How many bytes of UTF-8 any writer writes for the value at most, copies of inner values included."""
    texts: dict[int, list[str]] = {}
    for level, text in _texts(value, 0):
        texts.setdefault(level, []).append(text)
    # Writing an object or a list copies what its members have written, so a text costs as often as it is enclosed.
    return sum(max(level, 1) * _max_bytes(found) for level, found in texts.items())


def _max_bytes(texts: list[str]) -> int:
    everything = "".join(texts)
    in_utf8 = everything.encode("utf-8", "surrogatepass")
    plain = len(in_utf8) - len(in_utf8.translate(None, _PLAIN_BYTES))
    units = len(everything.encode("utf-16-le", "surrogatepass")) // 2
    return plain + _LONGEST_ESCAPE * (units - plain) + _BYTES_OF_EACH * len(texts)


def _texts(value: JsonValue, level: int) -> Iterator[tuple[int, str]]:
    """Every text of the value with its level: how many objects and lists it is in."""
    match value:
        case str():
            yield level, value
        case dict():
            for name, item in value.items():
                yield level + 1, name
                yield from _texts(item, level + 1)
        case list():
            for item in value:
                yield from _texts(item, level + 1)
            yield level + 1, ""
        case NumberToken():
            yield level, value.text
        case _:
            yield level, "false"
    # For the brackets of an empty list or object.
    if not value:
        yield level, ""


_SLASH = (("/", "\\/"),)
_LINE_ENDS = (("\u2028", "\\u2028"), ("\u2029", "\\u2029"))
_HTML = (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"))
_RAW_DEL = (("\x7f", "\\u007f", "\x7f"),)
_LONG_CONTROLS = (("\b", "\\b", "\\u0008"), ("\f", "\\f", "\\u000c"))

# With JSON_UNESCAPED_UNICODE, PHP 7.1 and later still escape U+2028 and U+2029.
PHP = JsonWriter(
    name="php", description="PHP's json_encode without flags", ascii_only=True, escapes=_SLASH, respells=_RAW_DEL
)
PHP_SLASHES = JsonWriter(
    name="php-unescaped-slashes",
    description="PHP's json_encode with JSON_UNESCAPED_SLASHES",
    ascii_only=True,
    respells=_RAW_DEL,
)
PHP_UNICODE = JsonWriter(
    name="php-unescaped-unicode",
    description="PHP's json_encode with JSON_UNESCAPED_UNICODE",
    escapes=_SLASH + _LINE_ENDS,
)
PHP_UNICODE_SLASHES = JsonWriter(
    name="php-unescaped-unicode-slashes",
    description="PHP's json_encode with JSON_UNESCAPED_UNICODE and JSON_UNESCAPED_SLASHES",
    escapes=_LINE_ENDS,
)
UNICODE = JsonWriter(
    name="unicode", description="compact JSON that escapes only what it must (JavaScript's JSON.stringify, fastjson)"
)
UNICODE_NO_NULLS = JsonWriter(
    name="unicode-no-nulls",
    description="compact JSON that escapes only what it must and leaves out nulls (fastjson)",
    drops_nulls=True,
)
JACKSON = JsonWriter(name="jackson", description="Java's Jackson", upper_hex=True)
JACKSON_ASCII = JsonWriter(
    name="jackson-escape-non-ascii",
    description="Java's Jackson with ESCAPE_NON_ASCII",
    ascii_only=True,
    upper_hex=True,
    respells=_RAW_DEL,
)
# Gson leaves out nulls and escapes for HTML by default.
GSON = JsonWriter(
    name="gson",
    description="Java's Gson",
    escapes=(*_HTML, ("=", "\\u003d"), ("'", "\\u0027"), *_LINE_ENDS),
    drops_nulls=True,
)
GSON_NULLS = replace(GSON, name="gson-nulls", description="Java's Gson with serializeNulls", drops_nulls=False)
GSON_NO_HTML = JsonWriter(
    name="gson-no-html", description="Java's Gson with disableHtmlEscaping", escapes=_LINE_ENDS, drops_nulls=True
)
GSON_NO_HTML_NULLS = replace(
    GSON_NO_HTML,
    name="gson-no-html-nulls",
    description="Java's Gson with disableHtmlEscaping and serializeNulls",
    drops_nulls=False,
)
# org.json's JSONObject leaves out nulls when it is made from a map.
ORG_JSON = JsonWriter(
    name="org-json",
    description="Java's org.json",
    escapes=(("</", "<\\/"),),
    escaped_runs=re.compile("[\x80-\x9f\u2000-\u20ff]++"),
    drops_nulls=True,
)
ORG_JSON_NULLS = replace(
    ORG_JSON, name="org-json-nulls", description="Java's org.json with JSONObject.NULL", drops_nulls=False
)
JSON_SIMPLE = JsonWriter(
    name="json-simple",
    description="Java's json-simple",
    escapes=_SLASH,
    escaped_runs=re.compile("[\x7f-\x9f\u2000-\u20ff]++"),
    upper_hex=True,
)
# Before Go 1.22, neither writes `\b` and `\f`.
GO = JsonWriter(name="go", description="Go's json.Marshal", escapes=_HTML + _LINE_ENDS, respells=_LONG_CONTROLS)
GO_NO_ESCAPE = JsonWriter(
    name="go-no-escape",
    description="Go's json.Encoder with SetEscapeHTML(false)",
    escapes=_LINE_ENDS,
    respells=_LONG_CONTROLS,
)
PYTHON = JsonWriter(
    name="python", description="Python's json.dumps", ascii_only=True, item_separator=", ", key_separator=": "
)
PYTHON_UNICODE = JsonWriter(
    name="python-unicode",
    description="Python's json.dumps with ensure_ascii=False",
    item_separator=", ",
    key_separator=": ",
)
PYTHON_COMPACT = JsonWriter(
    name="python-compact", description="Python's json.dumps with compact separators", ascii_only=True
)
PYTHON_COMPACT_UNICODE = JsonWriter(
    name="python-compact-unicode", description="Python's json.dumps with compact separators and ensure_ascii=False"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonDialect:
    """A writer with a key order: one way to turn fields into the text that is hashed or encrypted."""

    writer: JsonWriter
    key_order: KeyOrder = KeyOrder.BYTES
    #: Whether objects within the object are sorted too.
    recursive: bool = False
    #: What follows the closing brace. Go's Encoder writes a newline.
    ending: str = ""

    @property
    def name(self) -> str:
        """The name in logs, metrics and settings, e.g. `php` or `unicode+javascript+recursive`."""
        parts = [self.writer.name]
        if self.key_order is not KeyOrder.BYTES:
            parts.append(self.key_order)
        if self.recursive:
            parts.append("recursive")
        if self.ending:
            parts.append("newline")
        return "+".join(parts)

    @property
    def nested_order(self) -> KeyOrder:
        """How objects within the object are sorted."""
        return self.key_order if self.recursive else KeyOrder.AS_SENT

    def write(self, fields: Mapping[str, JsonValue]) -> bytes:
        """The fields as canonical JSON. The caller leaves out `sign`."""
        members = self.writer.write_members(fields, self.nested_order)
        return self.join(members, self.key_order.sort(members))

    def join(self, members: Mapping[str, str], order: Sequence[str]) -> bytes:
        """Canonical JSON of members that `writer` has written with `nested_order`, in the order of these names."""
        text = self.writer.join([members[name] for name in order if name in members]) + self.ending
        # A lone surrogate, which UTF-8 cannot encode, becomes `\udxxx` as JSON.stringify writes it.
        return text.encode("utf-8", "backslashreplace")


_PHP_WRITERS = (PHP, PHP_UNICODE_SLASHES, PHP_SLASHES, PHP_UNICODE)
_JAVA_WRITERS = (
    UNICODE,
    UNICODE_NO_NULLS,
    JACKSON,
    JACKSON_ASCII,
    GSON,
    GSON_NULLS,
    GSON_NO_HTML,
    GSON_NO_HTML_NULLS,
    ORG_JSON,
    ORG_JSON_NULLS,
    JSON_SIMPLE,
)
_PYTHON_WRITERS = (
    PYTHON,
    PYTHON_UNICODE,
    PYTHON_COMPACT,
    PYTHON_COMPACT_UNICODE,
)

#: Every dialect that is tried, likeliest first. Each language has its own key order.
DIALECTS: tuple[JsonDialect, ...] = (
    *(JsonDialect(writer=writer) for writer in _PHP_WRITERS),
    *(JsonDialect(writer=writer, recursive=True) for writer in _PHP_WRITERS),
    *(JsonDialect(writer=writer, key_order=KeyOrder.PHP) for writer in _PHP_WRITERS),
    *(JsonDialect(writer=writer, key_order=KeyOrder.AS_SENT) for writer in _PHP_WRITERS),
    JsonDialect(writer=UNICODE, key_order=KeyOrder.JAVASCRIPT),
    JsonDialect(writer=UNICODE, key_order=KeyOrder.JAVASCRIPT, recursive=True),
    JsonDialect(writer=UNICODE, key_order=KeyOrder.AS_SENT),
    *(JsonDialect(writer=writer, key_order=KeyOrder.UTF16) for writer in _JAVA_WRITERS),
    *(JsonDialect(writer=writer, recursive=True) for writer in (GO, GO_NO_ESCAPE)),
    *(JsonDialect(writer=writer, recursive=True, ending="\n") for writer in (GO, GO_NO_ESCAPE)),
    *(JsonDialect(writer=writer, recursive=True) for writer in _PYTHON_WRITERS),
)
#: By the names that logs, metrics and settings use.
DIALECTS_BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
WRITERS_BY_NAME = {dialect.writer.name: dialect.writer for dialect in DIALECTS}


def find_dialect(name: str) -> JsonDialect:
    """The dialect of that name. Raises `DialectInvalid`, which lists the known names."""
    if name not in DIALECTS_BY_NAME:
        raise DialectInvalid(f"{name!r} is not a JSON dialect; allowed are {', '.join(DIALECTS_BY_NAME)}")
    return DIALECTS_BY_NAME[name]


def find_writer(name: str) -> JsonWriter:
    """The writer of that name. Raises `DialectInvalid`, which lists the known names."""
    if name not in WRITERS_BY_NAME:
        raise DialectInvalid(f"json = {name!r} is not a JSON writer; allowed are {', '.join(WRITERS_BY_NAME)}")
    return WRITERS_BY_NAME[name]
