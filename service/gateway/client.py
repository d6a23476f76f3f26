"""Speaks to the gateway (document: 调用说明). Each call says which holds: not done, done, or unknown."""

import ipaddress
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import structlog
import urllib3

from service.gateway.cipher import ArgsCipher
from service.gateway.errors import CallbackRefused, GatewayError, MessageInvalid
from service.gateway.messages import (
    AmountUnit,
    OrderAnswer,
    OrderStatement,
    RequestEnvelope,
    RequestMethod,
    SingleWithholdArgs,
)
from service.gateway.request_dialect import RequestDialect, SignCase
from service.gateway.schemas import ORDER_ANSWER, REQUEST_ENVELOPE, SINGLE_WITHHOLD_ARGS
from service.gateway.signature import sign_request
from service.gateway.tokens import JsonValue, read_object
from service.masking import mask_personal
from service.settings import GatewaySettings

_MAX_ANSWER_BYTES = 64 * 1024
_MAX_CONNECTIONS = 16

_log = structlog.get_logger(__name__)


class NotSent(GatewayError):
    """Surely not done: the request never reached the gateway whole. It may be sent again."""


class OutcomeUnknown(GatewayError):
    """Nobody knows whether it was done: the request was sent, and no answer came that settles it.

    Ask with single-order-query. Never send a withhold again under another order number.
    """


class PlainHttpRefused(GatewayError):
    """The gateway's URL is no https:// URL: its answers are not signed, so TLS is all that vouches for them."""


class GatewayClient:
    """The gateway, in one merchant's name. Safe to share between threads; it keeps connections open between calls."""

    def __init__(
        self,
        *,
        settings: GatewaySettings,
        amount_unit: AmountUnit,
        clock: Callable[[], datetime],
        allow_plain_http: bool = False,
    ) -> None:
        """`clock` gives aware times. Plain http is for loopback addresses only, unless `allow_plain_http`.

        Raises PlainHttpRefused, DialectInvalid and KeyUnusable; connects to nothing yet.
        """
        if not allow_plain_http and not _keeps_secrets(settings.url):
            raise PlainHttpRefused("the gateway's url has to start with https://; plain http is for loopback only")
        self._settings = settings
        self._clock = clock
        self._dialect = RequestDialect.from_settings(settings.dialect)
        self._cipher = ArgsCipher(key=settings.aes_key.reveal(), dialect=self._dialect)
        self._withhold_args = SINGLE_WITHHOLD_ARGS[amount_unit]
        # urllib3 verifies certificates and host names unless told otherwise, and keeps one pool per host.
        self._http = urllib3.PoolManager(maxsize=_MAX_CONNECTIONS, retries=False)

    def withhold(self, args: SingleWithholdArgs) -> OrderStatement:
        """Charge a card. Returns the gateway's words on the order it *accepted*, which says nothing of it being paid.

        Raises NotSent where nothing can have happened, OutcomeUnknown for all else: a broken connection, no answer in
        time, any HTTP status but 200, an answer that cannot be read or is about another order, and status -1, with
        which gateways of this kind also answer for orders that they charge all the same. Never tried again by itself.
        """
        try:
            fields = self._withhold_args.write(args)
        except MessageInvalid as error:
            raise NotSent(str(error)) from error
        with _Record(RequestMethod.SINGLE_WITHHOLD, args.biz_order_no) as record:
            answer = _interpret(self._call(record, fields))
            if not answer.succeeded or answer.order is None:
                raise OutcomeUnknown(
                    f"the gateway answered status -1 ({mask_personal(answer.message)}); it may charge all the same"
                )
            if answer.order.biz_order_no != args.biz_order_no:
                raise OutcomeUnknown("the gateway answered about another order")
            return answer.order

    def close(self) -> None:
        """Let go of idle connections. Safe to call twice."""
        self._http.clear()

    def _call(self, record: "_Record", fields: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        body = _Body(json.dumps(REQUEST_ENVELOPE.write(self._seal(record, fields))).encode())
        deadline = time.monotonic() + self._settings.timeout_seconds
        try:
            response = self._http.request(
                "POST",
                self._settings.url,
                body=body,
                headers={
                    "Content-Type": "application/json;charset=UTF-8",
                    "Content-Length": str(len(body)),
                    "Accept": "application/json",
                },
                timeout=urllib3.Timeout(total=self._settings.timeout_seconds),
                redirect=False,
                preload_content=False,
            )
            text = _read(response, deadline)
        except urllib3.exceptions.HTTPError as error:
            if body.begun:
                raise OutcomeUnknown(f"no answer came ({type(error).__name__})") from error
            raise NotSent(f"the gateway cannot be reached ({type(error).__name__})") from error
        return _decode(response.status, text)

    def _seal(self, record: "_Record", fields: Mapping[str, JsonValue]) -> RequestEnvelope:
        args = self._cipher.seal(fields)
        return RequestEnvelope(
            ua=self._settings.ua,
            args=args,
            sign=sign_request(
                ua=self._settings.ua,
                key=self._settings.aes_key.reveal(),
                method=record.method,
                args=args,
                separator=self._dialect.sign_separator,
                upper_case=self._dialect.sign_case is SignCase.UPPER,
            ),
            request_id=record.request_id,
            method=record.method,
            timestamp=str(int(self._clock().timestamp())),
        )


def _interpret(values: Mapping[str, JsonValue]) -> OrderAnswer:
    try:
        return ORDER_ANSWER.read(values)
    except MessageInvalid as error:
        raise OutcomeUnknown(str(error)) from error


class _Body:
    """A body that knows whether any of it was handed to the socket: before that, nothing can have been done."""

    def __init__(self, content: bytes) -> None:
        self.begun = False
        self._content = content

    def __len__(self) -> int:
        return len(self._content)

    def __iter__(self) -> Iterator[bytes]:
        self.begun = True
        yield self._content


class _Record:
    """One call in the log: which method, which order, how long, and how it ended. Never what was sent or answered."""

    def __init__(self, method: RequestMethod, biz_order_no: str) -> None:
        self.method = method
        #: Unique, and not to be guessed from others.
        self.request_id = secrets.token_hex(16)
        self._biz_order_no = biz_order_no
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        outcome = "accepted" if error is None else _OUTCOMES.get(type(error), "unknown")
        _log.info(
            "gateway.called",
            method=self.method.value,
            biz_order_no=self._biz_order_no,
            request_id=self.request_id,
            seconds=round(time.monotonic() - self._started, 3),
            outcome=outcome,
        )


_OUTCOMES: Mapping[type[BaseException], str] = {NotSent: "not-sent"}


def _read(response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
    """The body. Raises OutcomeUnknown for one that is too long, or that comes too slowly."""
    content = bytearray()
    while chunk := response.read1(_MAX_ANSWER_BYTES):
        content += chunk
        if len(content) > _MAX_ANSWER_BYTES or time.monotonic() > deadline:
            # What is left of it must not be read as the next call's answer.
            response.close()
            raise OutcomeUnknown(f"the answer has more than {_MAX_ANSWER_BYTES} bytes, or they came too slowly")
    return bytes(content)


def _decode(status: int, content: bytes) -> Mapping[str, JsonValue]:
    if status != 200:
        raise OutcomeUnknown(f"the gateway answered HTTP {status}")
    try:
        return read_object(content.decode("utf-8-sig")).values
    except UnicodeDecodeError as error:
        raise OutcomeUnknown("the answer is not UTF-8") from error
    except CallbackRefused as error:
        raise OutcomeUnknown(f"the answer is no usable JSON object ({error.detail})") from error


def _keeps_secrets(url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme == "https":
        return True
    if parts.scheme != "http" or parts.hostname is None:
        return False
    try:
        return ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        return parts.hostname == "localhost"
