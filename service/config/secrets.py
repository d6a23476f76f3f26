"""Secrets in the settings: values that nothing shows by accident, and the marshmallow fields that read them.

No error message quotes any part of a secret.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from marshmallow import ValidationError, fields

from service.config.schema import ReadBy
from service.config.url_syntax import PERCENT_ENCODE, UrlMalformed, check_credentials_url


class Secret:
    """A secret that no log, traceback or dump shows; `reveal()` where it is used."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('…')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """An HTTP proxy that is spoken to without TLS."""

    host: str
    port: int
    #: `user:password`, as Basic authentication wants them; None where the proxy asks for none.
    credentials: Secret | None = None


class SecretField(fields.String):
    """Reads a `Secret`. The end of a line at its end is cut off: editors and `echo` add it."""

    def _deserialize(self, *args: Any, **kwargs: Any) -> Any:
        value = super()._deserialize(*args, **kwargs).rstrip("\r\n")
        if not value:
            raise ValidationError("must not be empty")
        self._check(value)
        return Secret(value)

    def _check(self, value: str) -> None:
        if not value.isprintable() or value != value.strip():
            raise ValidationError(
                "must hold no control character, such as the end of a line or a tab, and no space at its ends"
            )


#: The annotation of a secret in a section of the settings.
SecretText = Annotated[Secret, ReadBy(SecretField)]


class UrlField(SecretField):
    """Reads a URL that may hold a password. The library that connects with it judges the rest."""

    def __init__(self, *, schemes: Collection[str], example: str, **options: Any) -> None:
        super().__init__(**options)
        self._schemes = schemes
        self._example = example

    def _check(self, value: str) -> None:
        scheme, _, rest = value.partition("://")
        if not rest or scheme.partition("+")[0] not in self._schemes:
            raise ValidationError(f"must look like {self._example}; {PERCENT_ENCODE}")
        if scheme == "sqlite":  # it names a file
            return super()._check(value)
        try:
            check_credentials_url(value)
        except UrlMalformed as error:
            raise ValidationError(str(error)) from error


class ProxyField(SecretField):
    """Reads a `Proxy` from its URL."""

    def _check(self, value: str) -> None:
        try:
            check_credentials_url(value)
            url = urlsplit(value)
            # Reading the port checks it.
            usable = url.hostname and url.port != 0 and url.scheme == "http" and value.isascii()
        except ValueError:
            usable = False
        if not usable or url.path.strip("/") or url.query:
            raise ValidationError(
                "must look like http://user:password@proxy.example.com:3128; percent-encode what is neither letter nor"
                " digit in user and password"
            )

    def _deserialize(self, *args: Any, **kwargs: Any) -> Any:
        url = urlsplit(super()._deserialize(*args, **kwargs).reveal())
        credentials = None
        if url.username is not None:
            credentials = Secret(f"{unquote(url.username)}:{unquote(url.password or '')}")
        return Proxy(host=url.hostname or "", port=url.port or 80, credentials=credentials)
