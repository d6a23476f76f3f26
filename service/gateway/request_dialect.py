"""What the document leaves open about requests, as one value per merchant."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Self

from service.gateway.derivations import AES_KEY, parse_iv, parse_key
from service.gateway.encodings import BASE64, parse_encoding
from service.gateway.errors import DialectInvalid
from service.gateway.json_writers import find_writer


class KeySorting(StrEnum):
    """Which keys of the args are sorted (by bytes) before they are written."""

    TOP_LEVEL = "top-level"
    RECURSIVE = "recursive"
    NONE = "none"


class Mode(StrEnum):
    """AES mode. CBC needs an iv."""

    ECB = "ecb"
    CBC = "cbc"


class Padding(StrEnum):
    """How the last block is filled."""

    PKCS7 = "pkcs7"
    #: With zero bytes; none where the text ends with its block.
    ZERO = "zero"


class SignCase(StrEnum):
    """Case of the hex digits of a request's sign."""

    LOWER = "lower"
    UPPER = "upper"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestDialect:
    """How one gateway wants its requests. The defaults are what most gateways of this kind do."""

    #: Name of the JSON writer, see `json_writers.py`.
    json: str = "php"
    key_sorting: KeySorting = KeySorting.TOP_LEVEL
    mode: Mode = Mode.ECB
    #: How the AES key is made of the one that was handed out, see `derivations.py`. Its length (16, 24 or 32 bytes)
    #: chooses AES-128, 192 or 256.
    key: str = AES_KEY
    #: How CBC's iv is made; "" where there is none.
    iv: str = field(default="", repr=False)
    padding: Padding = Padding.PKCS7
    #: How the ciphertext is written, see `encodings.py`.
    encoding: str = BASE64
    #: What stands between ua, key, method and args before they are hashed.
    sign_separator: str = ""
    sign_case: SignCase = SignCase.LOWER

    def __post_init__(self) -> None:
        """Raises `DialectInvalid` for what is not known, and for an iv without CBC or CBC without one."""
        find_writer(self.json)
        parse_key(self.key)
        parse_encoding(self.encoding)
        if self.iv:
            parse_iv(self.iv)
        if self.iv and self.mode is Mode.ECB:
            raise DialectInvalid("iv: mode = 'ecb' has none; leave it out, or set mode = 'cbc'")
        if not self.iv and self.mode is Mode.CBC:
            raise DialectInvalid("iv: missing; mode = 'cbc' needs one, most often iv = 'key | first 16'")

    @classmethod
    def from_settings(cls, table: Mapping[str, str]) -> Self:
        """A dialect from a table of names, those left out by default.

        Raises `DialectInvalid` for a name or a value that is not known; it lists those that are.
        """
        known = [known_field.name for known_field in fields(cls)]
        given: dict[str, Any] = {}
        for name, value in table.items():
            if name not in known:
                raise DialectInvalid(f"{name!r} is no setting of a request dialect; allowed are {', '.join(known)}")
            choices = _CHOICES.get(name)
            if choices is not None and value not in list(choices):
                raise DialectInvalid(f"{name} = {value!r} is not known; allowed are {', '.join(choices)}")
            given[name] = value if choices is None else choices(value)
        return cls(**given)


_CHOICES: dict[str, type[StrEnum]] = {
    "key_sorting": KeySorting,
    "mode": Mode,
    "padding": Padding,
    "sign_case": SignCase,
}
