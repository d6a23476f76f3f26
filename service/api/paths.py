"""Percent-encoded paths: an order number may contain any printable character, slashes too."""

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from werkzeug.routing import BaseConverter, IntegerConverter, Map, ValidationError

from service.domain.order_numbers import is_order_no

_Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class UndecodedPaths:
    """WSGI middleware that routes by the path as it was sent.

    WSGI's PATH_INFO is percent-decoded: there, a slash in an order number looks like one between two segments. The
    converters of this module decode each segment by itself.
    """

    def __init__(self, application: _Application) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        # RAW_URI is gunicorn's and werkzeug's; its absolute form (RFC 9112, 3.2.2) names the host as well.
        target = environ["RAW_URI"]
        environ["PATH_INFO"] = target.partition("?")[0] if target.startswith("/") else urlsplit(target).path
        return self._application(environ, start_response)


class SegmentConverter(BaseConverter):
    """One percent-encoded segment of a path, decoded. One that is not UTF-8, or contains a NUL, matches no route."""

    def to_python(self, value: str) -> str:
        """Decode it."""
        try:
            text = unquote(value, errors="strict")
        except UnicodeDecodeError as error:
            raise ValidationError from error
        if "\0" in text:
            raise ValidationError
        return text

    def to_url(self, value: str) -> str:
        """Encode it."""
        return quote(value, safe="")


class EndpointConverter(SegmentConverter):
    """The name of an endpoint in a path."""


class DeadLetterConverter(SegmentConverter):
    """The id of a dead letter in a path."""


class RowNumberConverter(IntegerConverter):
    """The id of a replay or an endpoint test in a path: any number that the ledger can store."""

    def __init__(self, map: Map) -> None:
        super().__init__(map, max=2**63 - 1)


class OrderNumberConverter(SegmentConverter):
    """An order number in a path."""

    def to_python(self, value: str) -> str:
        """Decode it."""
        text = super().to_python(value)
        if not is_order_no(text):
            raise ValidationError
        return text
