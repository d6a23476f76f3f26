"""The dialects that a probe tries: those that gateways of this kind are known to have, likeliest first."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from math import prod

from service.config.settings import Secret
from service.gateway.cipher import ArgsCipher
from service.gateway.encodings import BASE64, BASE64_TWICE, BASE64_URL, BASE64_URL_UNPADDED, HEX, HEX_UPPER
from service.gateway.errors import KeyUnusable
from service.gateway.request_dialect import Mode, Padding, RequestDialect, SignCase

_SEPARATORS = ("", "&", "|", "-", "_", ",", ":", ";", "#", "+", "\n")
_KEYS = (
    "aes_key",
    "aes_key | first 16",
    "aes_key | md5 | hex",
    "aes_key | md5",
    "aes_key | from hex",
    "aes_key | from base64",
    "aes_key | sha256",
    "aes_key | sha1prng 16",
    "aes_key | md5 | hex | first 16",
    "aes_key | md5 | hex | skip 8 | first 16",
    "aes_key | fill 16",
    "aes_key | fill 32",
    "aes_key | md5 | hex | upper",
    "aes_key | md5 | hex | upper | first 16",
    "aes_key | md5 | hex | upper | skip 8 | first 16",
    "aes_key | md5 | hex | last 16",
    "aes_key | md5 | hex | upper | last 16",
    "aes_key | sha256 | hex | first 32",
    "aes_key | sha256 | hex | first 16",
    "aes_key | sha256 | first 16",
    "aes_key | sha1 | first 16",
    "aes_key | sha1prng 32",
    "aes_key | fill 24",
    "aes_key | sha1prng 24",
    "aes_key | sha256 | hex | upper | first 32",
    "aes_key | sha256 | hex | upper | first 16",
    "aes_key | sha256 | hex | last 32",
    "aes_key | sha256 | hex | upper | last 32",
    "aes_key | sha256 | hex | last 16",
    "aes_key | sha256 | hex | upper | last 16",
    "aes_key | sha1 | hex | first 16",
    "aes_key | sha1 | hex | first 32",
    "aes_key | last 16",
    "aes_key | first 24",
    "aes_key | first 32",
    "aes_key | reverse",
)
#: "" is ECB.
_IVS = (
    "",
    "key | first 16",
    "zeros",
    "sent",
    "'1234567890123456'",
    "aes_key | first 16",
    "aes_key | last 16",
    "aes_key | md5",
    "aes_key | md5 | hex | first 16",
    "aes_key | reverse | first 16",
    "'0102030405060708'",
    "aes_key | md5 | hex | skip 8 | first 16",
    "aes_key | md5 | hex | last 16",
    "aes_key | md5 | hex | upper | first 16",
    "aes_key | md5 | hex | upper | skip 8 | first 16",
    "aes_key | md5 | hex | upper | last 16",
    "key | last 16",
    "key | md5",
    "key | reverse | first 16",
    "'0123456789abcdef'",
    "'0000000000000000'",
)
# What `guess_writings` tells from its kin is left out; not base64url: not every key has texts that are alike in both.
_ENCODINGS = (BASE64, HEX, BASE64_TWICE, BASE64_URL, HEX_UPPER)
#: Encodings that write the same where no character differs, and no `=` is needed.
BASE64_KIN = (BASE64, BASE64_URL, BASE64_URL_UNPADDED)


def guess_signs(base: RequestDialect) -> Iterator[RequestDialect]:
    """`base` with every separator and case of the sign."""
    for separator, case in product(_SEPARATORS, SignCase):
        yield replace(base, sign_separator=separator, sign_case=case)


def guess_ciphers(base: RequestDialect, aes_key: Secret, *, hints: RequestDialect) -> Sequence[RequestDialect]:
    """`base` with every key, mode, iv and encoding that this key can be used with, and with PKCS7.

    What `hints`, the settings' own dialect, says of key and iv comes first. Then the fewer unlikely choices one makes,
    the sooner it comes: those with one unlikely choice before those with two. No AES key and iv are tried twice.
    """
    ivs = (hints.iv, *_IVS) if hints.iv else _IVS
    ranked = []
    keyed = _distinct((_with_cipher(base, key, "") for key in (hints.key, *_KEYS)), aes_key)
    for key_place, with_key in enumerate(keyed):
        ciphers = _distinct((_with_cipher(base, with_key.key, iv) for iv in ivs), aes_key)
        for (iv_place, cipher), (place, encoding) in product(enumerate(ciphers), enumerate(_ENCODINGS)):
            places = (key_place, iv_place, place)
            rank = prod(place + 1 for place in places)
            ranked.append((rank, places, replace(cipher, encoding=encoding)))
    return [guess for _, _, guess in sorted(ranked, key=lambda guess: guess[:2])]


def guess_writings(understood: RequestDialect) -> Iterator[RequestDialect]:
    """`understood` with every padding, and with the encodings that look like its own, likeliest first."""
    encodings = BASE64_KIN if understood.encoding in BASE64_KIN else (understood.encoding,)
    for padding, encoding in product(Padding, encodings):
        yield replace(understood, padding=padding, encoding=encoding)


def _with_cipher(base: RequestDialect, key: str, iv: str) -> RequestDialect:
    mode = Mode.CBC if iv else Mode.ECB
    return replace(base, key=key, mode=mode, iv=iv, padding=Padding.PKCS7, encoding=BASE64)


def _distinct(guesses: Iterable[RequestDialect], aes_key: Secret) -> Sequence[RequestDialect]:
    """Those that the key can be used with, and of those with the same AES key and iv the first."""
    found: dict[str, RequestDialect] = {}
    for guess in guesses:
        try:
            cipher = ArgsCipher(key=aes_key.reveal(), dialect=guess)
        except KeyUnusable:
            continue
        # Two blocks: of one alone, ECB and an iv of zeros make the same.
        found.setdefault(cipher.encrypt(bytes(16), iv=bytes(16)), guess)
    return list(found.values())
