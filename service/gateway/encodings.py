"""Encodings of a ciphertext: one, or several after one another (`base64 | base64`)."""

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from service.gateway.errors import CipherError, DialectInvalid

BASE64 = "base64"
BASE64_URL = "base64url"
BASE64_URL_UNPADDED = "base64url-unpadded"
HEX = "hex"
HEX_UPPER = "hex-upper"
#: What PHP's openssl_encrypt gives without OPENSSL_RAW_DATA, encoded once more.
BASE64_TWICE = "base64 | base64"

_MOST_WORDS = 3
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


@dataclass(frozen=True, slots=True)
class Encoding:
    """How bytes are written as text."""

    #: At least one; each encodes what the one before it wrote.
    words: tuple[str, ...]

    def encode(self, data: bytes) -> str:
        """The bytes as text."""
        text = ""
        for word in self.words:
            text = _ENCODERS[word](data)
            data = text.encode()
        return text

    def decode(self, text: str) -> bytes:
        """The bytes in a text. Raises `CipherError`.

        Either case of hex and either padding of base64 are taken: they say the same.
        """
        data = text.encode("utf-8", "surrogatepass")
        for word in reversed(self.words):
            data = _decode(data, word)
        return data


def parse_encoding(line: str) -> Encoding:
    """The encoding of this name. Raises `DialectInvalid`, which names the word at fault and those that are known."""
    words = tuple(word.strip() for word in line.split("|"))
    for word in words:
        if word not in _ENCODERS:
            likeliest = get_close_matches(word, _ENCODERS, n=1)
            hint = f"; did you mean {likeliest[0]!r}?" if likeliest else "."
            raise DialectInvalid(
                f"encoding: {word!r} is no encoding{hint} Allowed are {', '.join(_ENCODERS)}, and several with `|`"
            )
    if len(words) > _MOST_WORDS:
        raise DialectInvalid(f"encoding: {len(words)} encodings one after the other; allowed are {_MOST_WORDS}")
    return Encoding(words)


def _decode(data: bytes, word: str) -> bytes:
    try:
        text = data.decode("ascii")
        if word in (HEX, HEX_UPPER):
            return binascii.unhexlify(text)
        pattern = _BASE64_TEXT if word == BASE64 else _BASE64_URL_TEXT
        if not pattern.fullmatch(text):
            raise CipherError(f"args are not written in {word}")
        unpadded = text.rstrip("=")
        return base64.urlsafe_b64decode(unpadded.translate(_TO_URL_SAFE) + "=" * (-len(unpadded) % 4))
    except ValueError:
        raise CipherError(f"args are not written in {word}") from None
