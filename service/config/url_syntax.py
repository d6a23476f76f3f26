"""The syntax of URLs in the settings (RFC 3986), checked before any library reads them.

Libraries disagree about URLs that break the syntax. If a password has a raw `@`, some take the first `@` and some the
last for the end of the credentials, and print the rest of the password as a host in their errors. Our messages quote no
part of a URL.
"""

import re
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

#: How to correct a URL that cannot be read.
PERCENT_ENCODE = (
    "percent-encode special characters in its user, password and path"
    " (@ is %40, : is %3A, / is %2F, ? is %3F, # is %23, % is %25, a comma is %2C, a space is %20)"
)
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_END_OF_AUTHORITY = re.compile(r"[/?#]")


class UrlMalformed(ValueError):
    """The URL breaks the syntax. The message says how, and quotes no part of it."""


def check_credentials_url(url: str) -> None:
    """Check that all parsers read a URL with a user and a password in the same way. Raises UrlMalformed."""
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
    """Split an `http://` or `https://` URL that requests can be sent to. Raises UrlMalformed."""
    try:
        _check_characters(url)
        parts = urlsplit(url)
        # Reading the port checks it. A host must be a valid name for DNS.
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        (parts.hostname or "").encode("idna")
    except ValueError:
        usable = False
    # Requests would leave out the credentials and the fragment.
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
