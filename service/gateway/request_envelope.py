"""Request envelopes: args sealed and signed in one merchant's name (document: 公共请求参数, 加密流程描述)."""

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


def new_request_id() -> str:
    """A requestId: unique, and not to be guessed from others."""
    return secrets.token_hex(16)


class EnvelopeSealer:
    """Seals requests with one merchant's key in one dialect. Safe to share between threads."""

    def __init__(self, *, ua: str, aes_key: Secret, dialect: RequestDialect, clock: Callable[[], datetime]) -> None:
        """`clock` gives aware times. Raises `KeyUnusable` where the dialect makes no AES key of the key."""
        self._ua = ua
        self._aes_key = aes_key
        self._dialect = dialect
        self._clock = clock
        self._cipher = ArgsCipher(key=aes_key.reveal(), dialect=dialect)

    def seal(self, method: RequestMethod, fields: Mapping[str, JsonValue], *, request_id: str) -> bytes:
        """The body to post, with the present time."""
        args = self._cipher.seal(fields)
        sign = sign_args(method, args, ua=self._ua, aes_key=self._aes_key, dialect=self._dialect)
        return write_envelope(
            method, args, ua=self._ua, sign=sign, request_id=request_id, timestamp=self._clock().timestamp()
        )


def sign_args(method: RequestMethod, args: str, *, ua: str, aes_key: Secret, dialect: RequestDialect) -> str:
    """The sign of args that are encrypted already."""
    return sign_request(
        ua=ua,
        key=aes_key.reveal(),
        method=method,
        args=args,
        separator=dialect.sign_separator,
        upper_case=dialect.sign_case is SignCase.UPPER,
    )


def write_envelope(method: RequestMethod, args: str, *, ua: str, sign: str, request_id: str, timestamp: float) -> bytes:
    """The body to post; `timestamp` is in unix seconds."""
    envelope = RequestEnvelope(
        ua=ua, args=args, sign=sign, request_id=request_id, method=method, timestamp=str(int(timestamp))
    )
    return json.dumps(REQUEST_ENVELOPE.write(envelope)).encode()


def sign_request(*, ua: str, key: str, method: str, args: str, separator: str = "", upper_case: bool = False) -> str:
    """The sign of a request envelope: md5 hex of ua, key, method and args (the ciphertext as sent), joined.

    `key` is the key as the gateway handed it out, before anything is derived from it.
    """
    sign = md5(separator.join((ua, key, method, args)).encode("utf-8", "surrogateescape")).hexdigest()
    return sign.upper() if upper_case else sign


def verify_request(
    *, claimed: str, ua: str, key: str, method: str, args: str, separator: str = "", upper_case: bool = False
) -> None:
    """Raise `RequestRefused` unless `claimed` is exactly the sign of the envelope; compared in constant time."""
    sign = sign_request(ua=ua, key=key, method=method, args=args, separator=separator, upper_case=upper_case)
    if not hmac.compare_digest(sign.encode(), claimed.encode("utf-8", "surrogatepass")):
        raise RequestRefused("the sign does not fit ua, key, method and args")
