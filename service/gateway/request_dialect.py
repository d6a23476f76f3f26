"""What the document leaves open about requests, as one value per merchant."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Self

from service.gateway.errors import DialectInvalid
from service.gateway.json_writers import find_writer


class KeySorting(StrEnum):
    """Which keys of the args are sorted (by bytes) before they are written."""

    TOP_LEVEL = "top-level"
    RECURSIVE = "recursive"
    NONE = "none"


class Mode(StrEnum):
    """AES mode, and where CBC takes its iv from."""

    ECB = "ecb"
    #: iv = the first 16 bytes of the AES key.
    CBC_IV_KEY = "cbc-iv-key"
    #: iv = 16 zero bytes.
    CBC_IV_ZERO = "cbc-iv-zero"
    #: A random iv, sent before the ciphertext and encoded together with it.
    CBC_IV_SENT = "cbc-iv-sent"


class KeyForm(StrEnum):
    """How the AES key is made of the key that was handed out. Its length chooses AES-128, 192 or 256."""

    RAW = "raw"
    HEX = "hex"
    BASE64 = "base64"
    #: The 32 hex digits of its md5, as characters: AES-256.
    MD5_HEX = "md5-hex"
    #: The 16 bytes of its md5: AES-128.
    MD5_RAW = "md5-raw"
    SHA256 = "sha256"
    #: Its first 16 characters, whatever follows: PHP's AES-128 with a key of 32.
    FIRST_16 = "first-16"


class Padding(StrEnum):
    """How the last block is filled."""

    PKCS7 = "pkcs7"
    #: With zero bytes; none where the text ends with its block.
    ZERO = "zero"


class Encoding(StrEnum):
    """How the ciphertext is written."""

    BASE64 = "base64"
    BASE64_URL = "base64url"
    BASE64_URL_UNPADDED = "base64url-unpadded"
    HEX = "hex"
    HEX_UPPER = "hex-upper"


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
    key_form: KeyForm = KeyForm.RAW
    padding: Padding = Padding.PKCS7
    encoding: Encoding = Encoding.BASE64
    #: What stands between ua, key, method and args before they are hashed.
    sign_separator: str = ""
    sign_case: SignCase = SignCase.LOWER

    def __post_init__(self) -> None:
        find_writer(self.json)

    @classmethod
    def from_settings(cls, table: Mapping[str, str]) -> Self:
        """A dialect from a table of names, those left out by default.

        Raises `DialectInvalid` for a name or a value that is not known; it lists those that are.
        """
        known = [field.name for field in fields(cls)]
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
    "key_form": KeyForm,
    "padding": Padding,
    "encoding": Encoding,
    "sign_case": SignCase,
}
