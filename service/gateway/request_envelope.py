"""Request envelopes: encrypted args with their sign (document: 公共请求参数, 加密流程描述)."""

import hmac
import json
import secrets
from datetime import datetime
from hashlib import md5

from service.config.secrets import Secret
from service.gateway.cipher import RequestDialect, SignCase
from service.gateway.errors import RequestRefused
from service.gateway.messages import REQUEST_ENVELOPE, RequestEnvelope, RequestMethod


def new_request_id() -> str:
    """A unique requestId that cannot be guessed from others."""
    return secrets.token_hex(16)


def write_envelope(
    method: RequestMethod,
    args: str,
    *,
    ua: str,
    aes_key: Secret,
    dialect: RequestDialect,
    request_id: str,
    sent_at: datetime,
    sign: str = "",
) -> bytes:
    """The body to post, with encrypted args and their sign. The probe sends a wrong `sign` of its own."""
    envelope = RequestEnvelope(
        ua=ua,
        args=args,
        sign=sign or sign_request(ua=ua, key=aes_key.reveal(), method=method, args=args, dialect=dialect),
        request_id=request_id,
        method=method,
        timestamp=str(int(sent_at.timestamp())),
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
