"""AES for a request's args, in every way that gateways of this kind are known to do it.

The document says "sorted by key, turned into JSON, AES-encrypted" and leaves mode, key form, padding and encoding open;
`RequestDialect` names those choices, and its defaults are what most such gateways do. AES-ECB with md5 keys is theirs,
not ours: TLS is what protects the args.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from hashlib import md5, sha256

from Crypto.Cipher import AES
from Crypto.Cipher._mode_cbc import CbcMode
from Crypto.Cipher._mode_ecb import EcbMode
from Crypto.Random import get_random_bytes

from service.gateway.canonical import JsonDialect
from service.gateway.errors import CallbackRefused, CipherError, KeyUnusable
from service.gateway.json_writers import find_writer
from service.gateway.key_orders import KeyOrder
from service.gateway.request_dialect import Encoding, KeyForm, KeySorting, Mode, Padding, RequestDialect
from service.gateway.tokens import JsonValue, read_object

_BLOCK = AES.block_size
_KEY_LENGTHS = (16, 24, 32)
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_BASE64_URL = re.compile(r"[A-Za-z0-9_-]*={0,2}")


class ArgsCipher:
    """Encrypts and decrypts args with one merchant's key in one dialect. Safe to share between threads."""

    def __init__(self, *, key: str, dialect: RequestDialect) -> None:
        """`key` is the key as the gateway handed it out. Raises `KeyUnusable` where no AES key comes of it."""
        self._key = _derive_key(key, dialect.key_form)
        self._dialect = dialect
        self._json = JsonDialect(
            writer=find_writer(dialect.json),
            key_order=KeyOrder.AS_SENT if dialect.key_sorting is KeySorting.NONE else KeyOrder.BYTES,
            recursive=dialect.key_sorting is KeySorting.RECURSIVE,
        )

    def __repr__(self) -> str:
        return f"ArgsCipher(dialect={self._dialect!r})"

    def seal(self, args: Mapping[str, JsonValue]) -> str:
        """The args as JSON in the dialect, encrypted: what goes into the envelope."""
        return self.encrypt(self._json.write(args))

    def open(self, sealed: str) -> Mapping[str, JsonValue]:
        """The args in a ciphertext, written in any dialect of JSON. Raises `CipherError`."""
        plaintext = self.decrypt(sealed)
        try:
            return read_object(plaintext.decode("utf-8")).values
        except UnicodeDecodeError:
            # Without its cause, which holds the text.
            raise CipherError("the decrypted args are not UTF-8: another key, mode or padding was used") from None
        except CallbackRefused as error:
            raise CipherError(f"the decrypted args are no usable JSON object ({error.detail})") from None

    def encrypt(self, plaintext: bytes, *, iv: bytes | None = None) -> str:
        """Pad, encrypt and encode. `iv` (16 bytes) takes the place of the random one where the mode sends it along."""
        sent_iv = b""
        if self._dialect.mode is Mode.CBC_IV_SENT:
            sent_iv = get_random_bytes(_BLOCK) if iv is None else iv
        ciphertext = self._aes(sent_iv).encrypt(_pad(plaintext, self._dialect.padding))
        return _ENCODERS[self._dialect.encoding](sent_iv + ciphertext)

    def decrypt(self, text: str) -> bytes:
        """The plaintext bytes. Raises `CipherError`, which says at which step it failed."""
        ciphertext = _decode(text, self._dialect.encoding)
        sent_iv = b""
        if self._dialect.mode is Mode.CBC_IV_SENT:
            sent_iv, ciphertext = ciphertext[:_BLOCK], ciphertext[_BLOCK:]
        if not ciphertext or len(ciphertext) % _BLOCK:
            raise CipherError(f"the ciphertext has {len(ciphertext)} bytes, not a multiple of {_BLOCK}")
        return _unpad(self._aes(sent_iv).decrypt(ciphertext), self._dialect.padding)

    def _aes(self, sent_iv: bytes) -> CbcMode | EcbMode:
        match self._dialect.mode:
            case Mode.ECB:
                return AES.new(self._key, AES.MODE_ECB)
            case Mode.CBC_IV_KEY:
                return AES.new(self._key, AES.MODE_CBC, iv=self._key[:_BLOCK])
            case Mode.CBC_IV_ZERO:
                return AES.new(self._key, AES.MODE_CBC, iv=bytes(_BLOCK))
            case Mode.CBC_IV_SENT:
                return AES.new(self._key, AES.MODE_CBC, iv=sent_iv)


def _derive_key(key: str, form: KeyForm) -> bytes:
    # surrogateescape: what os.environ makes of bytes that are not UTF-8 turns back into those bytes.
    given = key.encode("utf-8", "surrogateescape")
    try:
        derived = _DERIVATIONS[form](given)
    except ValueError:
        raise KeyUnusable(f"key_form = '{form}', but the key is not written in {form}") from None
    if len(derived) not in _KEY_LENGTHS:
        raise KeyUnusable(
            f"key_form = '{form}' makes {len(derived)} bytes of a key of {len(given)}; AES takes 16, 24 or 32"
        )
    return derived


_DERIVATIONS: dict[KeyForm, Callable[[bytes], bytes]] = {
    KeyForm.RAW: bytes,
    KeyForm.HEX: binascii.unhexlify,
    KeyForm.BASE64: lambda key: base64.b64decode(key, validate=True),
    KeyForm.MD5_HEX: lambda key: md5(key).hexdigest().encode(),
    KeyForm.MD5_RAW: lambda key: md5(key).digest(),
    KeyForm.SHA256: lambda key: sha256(key).digest(),
    KeyForm.FIRST_16: lambda key: key[:16],
}


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


_ENCODERS: dict[Encoding, Callable[[bytes], str]] = {
    Encoding.BASE64: lambda data: base64.b64encode(data).decode(),
    Encoding.BASE64_URL: lambda data: base64.urlsafe_b64encode(data).decode(),
    Encoding.BASE64_URL_UNPADDED: lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="),
    Encoding.HEX: bytes.hex,
    Encoding.HEX_UPPER: lambda data: data.hex().upper(),
}


def _decode(text: str, encoding: Encoding) -> bytes:
    # Either case of hex and either padding of base64 are taken: they say the same.
    try:
        if encoding in (Encoding.HEX, Encoding.HEX_UPPER):
            return binascii.unhexlify(text)
        pattern = _BASE64 if encoding is Encoding.BASE64 else _BASE64_URL
        if not pattern.fullmatch(text):
            raise CipherError(f"args are not written in {encoding}")
        unpadded = text.rstrip("=")
        return base64.urlsafe_b64decode(unpadded.translate(_TO_URL_SAFE) + "=" * (-len(unpadded) % 4))
    except ValueError:
        raise CipherError(f"args are not written in {encoding}") from None


_TO_URL_SAFE = str.maketrans("+/", "-_")
