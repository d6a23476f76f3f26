"""multipart/form-data (RFC 7578), as far as a callback needs it: text fields, each once, and nothing around them."""

import re

from service.gateway.errors import CallbackRefused, Refusal
from service.gateway.strict_json import MAX_VALUES, JsonValue

# RFC 2046, 5.1.1: 1 to 70 characters.
_BOUNDARY = re.compile(
    r"""multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))""", re.I | re.S
)
_NAME = re.compile(r""";\s*name=(?:"((?:[^"\\\r\n]|\\.)*+)"|([^\s;"]++))""", re.I)
_FILE = re.compile(r";\s*filename\*?=", re.I)
_ESCAPED = re.compile(r"\\(.)")
# What has to be undone before the value is what was meant.
_ENCODED = re.compile(r"^content-transfer-encoding:[ \t]*+(?!(?:7bit|8bit|binary)[ \t]*$)", re.I | re.M)
_DISPOSITION = re.compile(r"^content-disposition:[ \t]*+form-data[ \t]*+(;.*)$", re.I | re.M)


def find_boundary(content_type: str | None) -> str | None:
    """The boundary in a Content-Type header; None where there is none or it is not that of multipart/form-data."""
    match = _BOUNDARY.match(content_type.strip()) if content_type else None
    return match and (match[1] or match[2])


def read_multipart(text: str, boundary: str) -> dict[str, JsonValue]:
    """The fields of a whole body, white space around it left out.

    Raises `CallbackRefused` for files, a field that is there twice, and whatever is not framed as RFC 7578 says: no two
    readers may understand it differently.
    """
    # Each boundary belongs to the line end before it; the first has none.
    before, *parts = f"\r\n{text}".split(f"\r\n--{boundary}")
    if before or len(parts) < 2 or parts.pop() != "--":
        raise _broken("it does not begin and end with the boundary that the Content-Type header names")
    if len(parts) > MAX_VALUES:
        raise CallbackRefused(Refusal.TOO_MANY_VALUES, f"the form holds more than {MAX_VALUES} fields")
    values: dict[str, JsonValue] = {}
    for part in parts:
        name, value = _read_part(part)
        if name in values:
            raise CallbackRefused(Refusal.DUPLICATE_KEY, "a form field is there twice: which one was signed is unknown")
        values[name] = value
    return values


def _read_part(part: str) -> tuple[str, str]:
    headers, end, value = part.partition("\r\n\r\n")
    if not end or not headers.startswith("\r\n"):
        raise _broken("a part has no headers, or its lines do not end in CR LF")
    disposition = _DISPOSITION.findall(headers.replace("\r\n", "\n"))
    names = _NAME.findall(disposition[0]) if len(disposition) == 1 else []
    if len(names) != 1:
        raise _broken("a part does not have exactly one Content-Disposition: form-data with one name")
    if _FILE.search(disposition[0]):
        raise CallbackRefused(Refusal.FILE_IN_FORM, "the multipart form holds a file; a callback has fields only")
    if _ENCODED.search(headers.replace("\r\n", "\n")):
        raise _broken("a part has a Content-Transfer-Encoding; forms have none (RFC 7578, 4.7)")
    quoted, bare = names[0]
    return _ESCAPED.sub(r"\1", quoted) if quoted else bare, value


def _broken(what: str) -> CallbackRefused:
    return CallbackRefused(Refusal.NOT_MULTIPART, f"the body is no multipart form: {what}")
