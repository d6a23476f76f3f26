"""AES for a request's args, in every way that gateways of this kind are known to do it.

The document says "sorted by key, turned into JSON, AES-encrypted" and leaves mode, key, iv, padding and encoding open;
`RequestDialect` names those choices, and its defaults are what most such gateways do. AES-ECB with md5 keys is theirs,
not ours: TLS is what protects the args.
"""

from collections.abc import Mapping

from Crypto.Cipher import AES
from Crypto.Cipher._mode_cbc import CbcMode
from Crypto.Cipher._mode_ecb import EcbMode
from Crypto.Random import get_random_bytes

from service.gateway.canonical import JsonDialect
from service.gateway.derivations import AES_KEY, KEY, SENT, ZEROS, Derivation, parse_iv, parse_key
from service.gateway.encodings import parse_encoding
from service.gateway.errors import CallbackRefused, CipherError, KeyUnusable
from service.gateway.json_writers import find_writer
from service.gateway.key_orders import KeyOrder
from service.gateway.request_dialect import KeySorting, Padding, RequestDialect
from service.gateway.strict_json import JsonValue, read_object

_BLOCK = AES.block_size
_KEY_LENGTHS = (16, 24, 32)


class ArgsCipher:
    """Encrypts and decrypts args with one merchant's key in one dialect. Safe to share between threads."""

    def __init__(self, *, key: str, dialect: RequestDialect) -> None:
        """`key` is the key as the gateway handed it out. Raises `KeyUnusable` where no AES key or no iv comes of it."""
        # surrogateescape: what os.environ makes of bytes that are not UTF-8 turns back into those bytes.
        given = key.encode("utf-8", "surrogateescape")
        self._key = _derive_key(given, dialect.key)
        iv = parse_iv(dialect.iv) if dialect.iv else None
        self._sends_iv = iv is not None and iv.source == SENT
        #: None where there is none, or where each text has its own.
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
        """Pad, encrypt and encode. `iv` (16 bytes) takes the place of the random one where one is sent along."""
        sent_iv = b""
        if self._sends_iv:
            sent_iv = get_random_bytes(_BLOCK) if iv is None else iv
        ciphertext = self._aes(sent_iv).encrypt(_pad(plaintext, self._dialect.padding))
        return self._encoding.encode(sent_iv + ciphertext)

    def decrypt(self, text: str) -> bytes:
        """The plaintext bytes. Raises `CipherError`, which says at which step it failed."""
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


def _derive_iv(given: bytes, key: bytes, derivation: Derivation) -> bytes:
    # It may hold the iv itself, so the errors do not quote it.
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
