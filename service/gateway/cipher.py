"""AES encryption of a request's args, in every dialect that gateways of this kind are known to use.

The document says "sorted by key, turned into JSON, AES-encrypted" and leaves mode, key, iv, padding and encoding open.
`RequestDialect` names these choices; its defaults are the most common ones. AES-ECB with md5 keys is the gateways'
choice, not ours: TLS protects the args.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, Self

from Crypto.Cipher import AES
from Crypto.Cipher._mode_cbc import CbcMode
from Crypto.Cipher._mode_ecb import EcbMode
from Crypto.Random import get_random_bytes

from service.gateway.bodies import JsonValue, read_object
from service.gateway.errors import CallbackRefused, CipherError, DialectInvalid, KeyUnusable
from service.gateway.json_dialects import JsonDialect, KeyOrder, find_writer
from service.gateway.key_derivation import AES_KEY, KEY, SENT, ZEROS, KeyDerivation, parse_iv, parse_key

BASE64 = "base64"
BASE64_URL = "base64url"
BASE64_URL_UNPADDED = "base64url-unpadded"
HEX = "hex"
HEX_UPPER = "hex-upper"
#: What PHP's openssl_encrypt returns without OPENSSL_RAW_DATA, encoded again.
BASE64_TWICE = "base64 | base64"
_BLOCK = AES.block_size
_KEY_LENGTHS = (16, 24, 32)
_MAX_ENCODINGS = 3
_BASE64_TEXT = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_BASE64_URL_TEXT = re.compile(r"[A-Za-z0-9_-]*={0,2}")
_TO_URL_SAFE = str.maketrans("+/", "-_")
_ENCODERS: dict[str, Callable[[bytes], str]] = {
    BASE64: lambda data: base64.b64encode(data).decode(),
    BASE64_URL: lambda data: base64.urlsafe_b64encode(data).decode(),
    BASE64_URL_UNPADDED: lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="),
    HEX: bytes.hex,
    HEX_UPPER: lambda data: data.hex().upper(),
}


class KeySorting(StrEnum):
    """Which keys of the args are sorted, by bytes."""

    TOP_LEVEL = "top-level"
    RECURSIVE = "recursive"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a ciphertext is written as text: in one encoding, or in several in turn (`base64 | base64`)."""

    #: At least one. Each encodes the output of the one before it.
    names: tuple[str, ...]

    def encode(self, data: bytes) -> str:
        """The bytes as text."""
        text = ""
        for name in self.names:
            text = _ENCODERS[name](data)
            data = text.encode()
        return text

    def decode(self, text: str) -> bytes:
        """The bytes in a text. Raises `CipherError`. Accepts hex in either case, and base64 with or without padding."""
        data = text.encode("utf-8", "surrogatepass")
        for name in reversed(self.names):
            data = _decode(data, name)
        return data


def parse_encoding(line: str) -> Encoding:
    """Parse an `encoding` setting. Raises `DialectInvalid`, which names the unknown encoding and the known ones."""
    names = tuple(name.strip() for name in line.split("|"))
    for name in names:
        if name not in _ENCODERS:
            likeliest = get_close_matches(name, _ENCODERS, n=1)
            hint = f"; did you mean {likeliest[0]!r}?" if likeliest else "."
            raise DialectInvalid(
                f"encoding: {name!r} is not an encoding{hint} Allowed are {', '.join(_ENCODERS)}, and several with `|`"
            )
    if len(names) > _MAX_ENCODINGS:
        raise DialectInvalid(f"encoding: {len(names)} encodings one after the other; allowed are {_MAX_ENCODINGS}")
    return Encoding(names)


def _decode(data: bytes, name: str) -> bytes:
    try:
        text = data.decode("ascii")
        if name in (HEX, HEX_UPPER):
            return binascii.unhexlify(text)
        pattern = _BASE64_TEXT if name == BASE64 else _BASE64_URL_TEXT
        if not pattern.fullmatch(text):
            raise CipherError(f"args are not written in {name}")
        unpadded = text.rstrip("=")
        return base64.urlsafe_b64decode(unpadded.translate(_TO_URL_SAFE) + "=" * (-len(unpadded) % 4))
    except ValueError:
        raise CipherError(f"args are not written in {name}") from None


class Mode(StrEnum):
    """AES mode. CBC needs an iv."""

    ECB = "ecb"
    CBC = "cbc"


class Padding(StrEnum):
    """How the last block is padded."""

    PKCS7 = "pkcs7"
    #: With zero bytes; with none if the block is full.
    ZERO = "zero"


class SignCase(StrEnum):
    """Case of the hex digits of a request's sign."""

    LOWER = "lower"
    UPPER = "upper"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestDialect:
    """How one gateway expects its requests. The defaults are the most common choices."""

    #: Name of the JSON writer, see `json_dialects.py`.
    json: str = "php"
    key_sorting: KeySorting = KeySorting.TOP_LEVEL
    mode: Mode = Mode.ECB
    #: How the AES key is derived from the `aes_key` setting, see `key_derivation.py`. Its length (16, 24 or 32 bytes)
    #: selects AES-128, 192 or 256.
    key: str = AES_KEY
    #: How CBC's iv is derived; "" for ECB.
    iv: str = field(default="", repr=False)
    padding: Padding = Padding.PKCS7
    #: How the ciphertext is written, see `Encoding`.
    encoding: str = BASE64
    #: The separator of ua, key, method and args in the text that is signed.
    sign_separator: str = ""
    sign_case: SignCase = SignCase.LOWER

    def __post_init__(self) -> None:
        """Raises `DialectInvalid` for an unknown value, for ECB with an iv and for CBC without one."""
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
        """A dialect from its settings; those left out have their defaults.

        Raises `DialectInvalid` for an unknown name or value; it lists the known ones.
        """
        known = [known_field.name for known_field in fields(cls)]
        given: dict[str, Any] = {}
        for name, value in table.items():
            if name not in known:
                raise DialectInvalid(f"{name!r} is not a setting of a request dialect; allowed are {', '.join(known)}")
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


class ArgsCipher:
    """Encrypts and decrypts args with one merchant's key in one dialect. Safe to share between threads."""

    def __init__(self, *, key: str, dialect: RequestDialect) -> None:
        """`key` is the key as the gateway handed it out. Raises `KeyUnusable` if it gives no AES key or no iv."""
        # os.environ decodes bytes that are not UTF-8 with surrogateescape; this restores them.
        given = key.encode("utf-8", "surrogateescape")
        self._key = _derive_key(given, dialect.key)
        iv = parse_iv(dialect.iv) if dialect.iv else None
        self._sends_iv = iv is not None and iv.source == SENT
        #: None if there is none, or if each text has its own.
        self._iv = None if iv is None or self._sends_iv else _derive_iv(given, self._key, iv)
        self._encoding = parse_encoding(dialect.encoding)
        self._dialect = dialect
        self._json = JsonDialect(
            writer=find_writer(dialect.json),
            key_order=KeyOrder.AS_SENT if dialect.key_sorting is KeySorting.NONE else KeyOrder.BYTES,
            recursive=dialect.key_sorting is KeySorting.RECURSIVE,
        )

    def __repr__(self) -> str:
        return f"ArgsCipher(dialect={self._dialect!r})"

    def seal(self, args: Mapping[str, JsonValue]) -> str:
        """Write the args as JSON in the dialect and encrypt them: the envelope's `args`."""
        return self.encrypt(self._json.write(args))

    def open(self, sealed: str) -> Mapping[str, JsonValue]:
        """Decrypt args, whose JSON may be written in any dialect. Raises `CipherError`."""
        plaintext = self.decrypt(sealed)
        try:
            return read_object(plaintext.decode("utf-8")).values
        except UnicodeDecodeError:
            # Without its cause, which holds the text.
            raise CipherError("the decrypted args are not UTF-8: another key, mode or padding was used") from None
        except CallbackRefused as error:
            raise CipherError(f"the decrypted args are no usable JSON object ({error.detail})") from None

    def encrypt(self, plaintext: bytes, *, iv: bytes | None = None) -> str:
        """Pad, encrypt and encode. `iv` (16 bytes) replaces the random one of a dialect that sends its iv."""
        sent_iv = b""
        if self._sends_iv:
            sent_iv = get_random_bytes(_BLOCK) if iv is None else iv
        ciphertext = self._aes(sent_iv).encrypt(_pad(plaintext, self._dialect.padding))
        return self._encoding.encode(sent_iv + ciphertext)

    def decrypt(self, text: str) -> bytes:
        """The plaintext bytes. Raises `CipherError`, which says which step failed."""
        ciphertext = self._encoding.decode(text)
        sent_iv = b""
        if self._sends_iv:
            sent_iv, ciphertext = ciphertext[:_BLOCK], ciphertext[_BLOCK:]
        if not ciphertext or len(ciphertext) % _BLOCK:
            raise CipherError(f"the ciphertext has {len(ciphertext)} bytes, not a multiple of {_BLOCK}")
        return _unpad(self._aes(sent_iv).decrypt(ciphertext), self._dialect.padding)

    def _aes(self, sent_iv: bytes) -> CbcMode | EcbMode:
        iv = self._iv or sent_iv
        return AES.new(self._key, AES.MODE_CBC, iv=iv) if iv else AES.new(self._key, AES.MODE_ECB)


def _derive_key(given: bytes, line: str) -> bytes:
    try:
        key = parse_key(line).derive({AES_KEY: given})
    except KeyUnusable as error:
        raise KeyUnusable(f"key = {line!r}: {error}") from None
    if len(key) not in _KEY_LENGTHS:
        raise KeyUnusable(
            f"key = {line!r} makes {len(key)} bytes of an aes_key of {len(given)}; AES takes 16, 24 or 32"
        )
    return key


def _derive_iv(given: bytes, key: bytes, derivation: KeyDerivation) -> bytes:
    # The setting may be the iv itself, so the errors do not quote it.
    try:
        iv = derivation.derive({AES_KEY: given, KEY: key, ZEROS: bytes(_BLOCK)})
    except KeyUnusable as error:
        raise KeyUnusable(f"iv: {error}") from None
    if len(iv) != _BLOCK:
        raise KeyUnusable(f"iv: it makes {len(iv)} bytes; an iv has {_BLOCK}, so add e.g. `first {_BLOCK}`")
    return iv


def _pad(plaintext: bytes, padding: Padding) -> bytes:
    if padding is Padding.PKCS7:
        missing = _BLOCK - len(plaintext) % _BLOCK
        return plaintext + bytes([missing]) * missing
    return plaintext + bytes(-len(plaintext) % _BLOCK)


def _unpad(padded: bytes, padding: Padding) -> bytes:
    if padding is Padding.ZERO:
        return padded.rstrip(b"\0")
    length = padded[-1]
    if not 1 <= length <= _BLOCK or padded[-length:] != bytes([length]) * length:
        raise CipherError("the padding is not PKCS7: another key, mode or padding was used")
    return padded[:-length]
