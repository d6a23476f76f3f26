"""The syntax of URLs in the settings (RFC 3986), judged before any library reads them.

Libraries differ in what they make of a URL that breaks it: of a raw `@` in a password, some take the first and some the
last for the end of the credentials, and name the rest of the password as a host in their errors. No message of ours
quotes any of a URL.
"""

import re
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

#: What to do about a URL that cannot be read.
PERCENT_ENCODE = (
    "percent-encode special characters in its user, password and path"
    " (@ is %40, : is %3A, / is %2F, ? is %3F, # is %23, % is %25, a comma is %2C, a space is %20)"
)
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_END_OF_AUTHORITY = re.compile(r"[/?#]")


class UrlMalformed(ValueError):
    """The URL breaks the syntax. The message says how, and quotes none of it."""


def check_credentials_url(url: str) -> None:
    """Check a URL that may carry a user and a password: all parsers read it alike. Raises UrlMalformed."""
    _check_characters(url)
    rest = url.partition("://")[2]
    end = _END_OF_AUTHORITY.search(rest)
    authority, tail = (rest[: end.start()], rest[end.start() :]) if end else (rest, "")
    if authority.count("@") > 1 or "@" in tail:
        raise UrlMalformed(f"has an @ that does not stand before its host; {PERCENT_ENCODE}")
    if "#" in tail:
        raise UrlMalformed(f"has a raw #; {PERCENT_ENCODE}")
    if re.search(r"[\[\]]", authority.rpartition("@")[0]):
        raise UrlMalformed(f"has a bracket in its user or password; {PERCENT_ENCODE} ([ is %5B, ] is %5D)")


def split_http_url(url: str) -> SplitResult:
    """The parts of an `http://` or `https://` URL that requests can be sent to. Raises UrlMalformed."""
    try:
        _check_characters(url)
        parts = urlsplit(url)
        # Reading the port checks it. A host has to fit into a question to a name server.
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        (parts.hostname or "").encode("idna")
    except ValueError:
        usable = False
    # What is in front of an @ would be left out of every request, and so would a fragment.
    if not usable or "@" in parts.netloc or "#" in url or not url.isascii():
        raise UrlMalformed(
            "needs an http:// or https:// URL with a host, in ASCII, without blanks, user, password and fragment;"
            " percent-encode special characters in its path"
        )
    return parts


def _check_characters(url: str) -> None:
    try:
        printable = unquote_to_bytes(url).decode().isprintable()
    except UnicodeError as error:
        raise UrlMalformed(f"is not percent-encoded UTF-8; {PERCENT_ENCODE}") from error
    if not printable or " " in url:
        raise UrlMalformed(f"has a blank or a control character, such as the end of a line; {PERCENT_ENCODE}")
    if _STRAY_PERCENT.search(url):
        raise UrlMalformed(f"has a % that does not stand before two hexadecimal digits; {PERCENT_ENCODE}")
