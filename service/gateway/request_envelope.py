"""Request envelopes: encrypted args with their sign, for one merchant (document: 公共请求参数, 加密流程描述)."""

import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import md5

from service.config.settings import Secret
from service.gateway.cipher import ArgsCipher, RequestDialect, SignCase
from service.gateway.errors import RequestRefused
from service.gateway.messages import RequestEnvelope, RequestMethod
from service.gateway.schemas import REQUEST_ENVELOPE
from service.gateway.strict_json import JsonValue


class EnvelopeSealer:
    """Encrypts and signs requests with one merchant's key in one dialect. Safe to share between threads."""

    def __init__(self, *, ua: str, aes_key: Secret, dialect: RequestDialect, clock: Callable[[], datetime]) -> None:
        """`clock` returns aware times. Raises `KeyUnusable` if the dialect cannot derive an AES key from the key."""
        self._ua = ua
        self._aes_key = aes_key
        self._dialect = dialect
        self._clock = clock
        self._cipher = ArgsCipher(key=aes_key.reveal(), dialect=dialect)

    def seal(self, method: RequestMethod, fields: Mapping[str, JsonValue], *, request_id: str) -> bytes:
        """The body to post, with the current time."""
        args = self._cipher.seal(fields)
        sign = sign_request(ua=self._ua, key=self._aes_key.reveal(), method=method, args=args, dialect=self._dialect)
        return write_envelope(
            method, args, ua=self._ua, sign=sign, request_id=request_id, timestamp=self._clock().timestamp()
        )


def new_request_id() -> str:
    """A unique requestId that cannot be guessed from others."""
    return secrets.token_hex(16)


def write_envelope(method: RequestMethod, args: str, *, ua: str, sign: str, request_id: str, timestamp: float) -> bytes:
    """The body to post; `timestamp` is in unix seconds."""
    envelope = RequestEnvelope(
        ua=ua, args=args, sign=sign, request_id=request_id, method=method, timestamp=str(int(timestamp))
    )
    return json.dumps(REQUEST_ENVELOPE.write(envelope)).encode()


def sign_request(*, ua: str, key: str, method: str, args: str, dialect: RequestDialect) -> str:
    """The sign of a request envelope: md5 hex of ua, key, method and args (the ciphertext as sent), joined.

    `key` is the key as the gateway handed it out, before anything is derived from it.
    """
    text = dialect.sign_separator.join((ua, key, method, args))
    sign = md5(text.encode("utf-8", "surrogateescape")).hexdigest()
    return sign.upper() if dialect.sign_case is SignCase.UPPER else sign


def verify_request(*, sign: str, ua: str, key: str, method: str, args: str, dialect: RequestDialect) -> None:
    """Raise `RequestRefused` unless `sign` is exactly the sign of the envelope. Compares in constant time."""
    expected = sign_request(ua=ua, key=key, method=method, args=args, dialect=dialect)
    if not hmac.compare_digest(expected.encode(), sign.encode("utf-8", "surrogatepass")):
        raise RequestRefused("the sign does not fit ua, key, method and args")
