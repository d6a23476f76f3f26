"""Request envelopes: args sealed and signed in one merchant's name (document: 公共请求参数, 加密流程描述)."""

import json
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime

from service.config.settings import Secret
from service.gateway.cipher import ArgsCipher
from service.gateway.messages import RequestEnvelope, RequestMethod
from service.gateway.request_dialect import RequestDialect, SignCase
from service.gateway.schemas import REQUEST_ENVELOPE
from service.gateway.signature import sign_request
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
