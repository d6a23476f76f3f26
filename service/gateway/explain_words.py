"""The readings of `bodies.py` and the JSON dialects of `canonical.py` in plain words."""

from collections.abc import Mapping

from service.gateway.bodies import BodyKind

_WRITERS: Mapping[str, str] = {
    "php": "PHP's json_encode without flags",
    "php-unescaped-slashes": "PHP's json_encode with JSON_UNESCAPED_SLASHES",
    "php-unescaped-unicode": "PHP's json_encode with JSON_UNESCAPED_UNICODE",
    "php-unescaped-unicode-slashes": "PHP's json_encode with JSON_UNESCAPED_UNICODE and JSON_UNESCAPED_SLASHES",
    "unicode": "compact JSON that escapes only what it must (JavaScript's JSON.stringify, fastjson)",
    "unicode-no-nulls": "compact JSON that escapes only what it must and leaves out nulls (fastjson)",
    "jackson": "Java's Jackson",
    "jackson-escape-non-ascii": "Java's Jackson with ESCAPE_NON_ASCII",
    "gson": "Java's Gson",
    "gson-nulls": "Java's Gson with serializeNulls",
    "gson-no-html": "Java's Gson with disableHtmlEscaping",
    "gson-no-html-nulls": "Java's Gson with disableHtmlEscaping and serializeNulls",
    "org-json": "Java's org.json",
    "org-json-nulls": "Java's org.json with JSONObject.NULL",
    "json-simple": "Java's json-simple",
    "go": "Go's json.Marshal",
    "go-no-escape": "Go's json.Encoder with SetEscapeHTML(false)",
    "python": "Python's json.dumps",
    "python-unicode": "Python's json.dumps with ensure_ascii=False",
    "python-compact": "Python's json.dumps with compact separators",
    "python-compact-unicode": "Python's json.dumps with compact separators and ensure_ascii=False",
    "spliced": "the body's own text, cut into its fields and sorted",
    "spliced-compact": "the body's own text, cut into its fields and sorted, without white space between them",
}
_DETAILS: Mapping[str, str] = {
    "utf16": "keys sorted by UTF-16 units, as Java does",
    "javascript": "keys sorted as JavaScript's objects are, numbers first",
    "php": "keys sorted by PHP's ksort without SORT_STRING",
    "as-sent": "keys as they were sent, not sorted",
    "recursive": "objects within it sorted too",
    "newline": "a newline at the end",
    "numbers": "what looks like a number or a boolean signed as one, without quotes",
    "nulls": "documented fields that are not there signed as null",
}
_KINDS: Mapping[BodyKind, str] = {
    BodyKind.JSON: "a JSON object",
    BodyKind.FORM: "a form",
    BodyKind.FORM_WITH_PLUS: "a form whose + was not escaped and stands for itself",
    BodyKind.MULTIPART: "a multipart form",
    BodyKind.JSON_IN_FORM: "a form with the JSON as its only key or value",
    BodyKind.JSON_IN_JSON: "a JSON string that holds the JSON",
    BodyKind.JSON_LIST: "a JSON list with the one object in it",
}


def describe_dialect(name: str) -> str:
    """A dialect's name, e.g. `php+as-sent`, in plain words."""
    writer, *details = name.split("+")
    return "; ".join([_WRITERS[writer], *(_DETAILS[detail] for detail in details)])


def describe_kind(kind: BodyKind) -> str:
    """How a body was read, in plain words."""
    return _KINDS[kind]
