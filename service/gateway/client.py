"""Calls the gateway (document: 调用说明, 接口明细). Each call ends as done, not done, or unknown."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self, TypeVar

from service.config.settings import GatewaySettings, MerchantSettings
from service.domain.masking import mask_personal
from service.domain.order_numbers import is_other_spelling
from service.gateway.arguments import PersonalArgs, check_arguments
from service.gateway.bodies import JsonValue
from service.gateway.cipher import ArgsCipher, RequestDialect
from service.gateway.errors import (
    ArgumentsInvalid,
    CallFailed,
    GatewayError,
    MessageInvalid,
    NotSent,
    OutcomeUnknown,
    Refused,
    WithholdRefused,
)
from service.gateway.messages import MessageSchema, OrderStatement
from service.gateway.requests import (
    CONFIRM_TIED_CARD_ANSWER,
    CONFIRM_TIED_CARD_ARGS,
    FAILED,
    ORDER_ANSWER,
    PRE_TIED_CARD_ANSWER,
    PRE_TIED_CARD_ARGS,
    SINGLE_ORDER_QUERY_ARGS,
    SINGLE_WITHHOLD_ARGS,
    AmountUnit,
    ConfirmTiedCardArgs,
    GatewayAnswer,
    PreTiedCardArgs,
    RequestMethod,
    SingleOrderQueryArgs,
    SingleWithholdArgs,
    new_request_id,
    write_envelope,
)
from service.gateway.transport import GatewayTransport
from service.runtime.logs import Logger
from service.runtime.tracing import NO_TRACING, Tracing

_log = Logger(__name__)
Answer = TypeVar("Answer")
Args = TypeVar("Args", bound=PersonalArgs)
Sent = TypeVar("Sent")
# Before the second and the third try. A query can be repeated safely, and often succeeds on a new connection.
_QUERY_PAUSES_SECONDS = (0.2, 0.5)
_LONGEST_STATUS = 40
_OUTCOMES: Mapping[type[BaseException], str] = {NotSent: "not-sent", Refused: "refused"}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueriedOrder:
    """The gateway's answer to a query for an order."""

    #: None if the gateway has no such order.
    order: OrderStatement | None
    #: The answer's message. If there is no such order, it says why.
    message: str
    #: When the query was sent, aware.
    asked_at: datetime
    request_id: str
    #: Whether the gateway answered with an order whose number differs in its spelling alone. `order` is None then.
    other_spelling: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedOrder:
    """An order that the gateway has accepted, which does not mean that it was paid."""

    order: OrderStatement
    request_id: str


class _CallRecord:
    """Logs a call at the end of its `with`: the method, the order, how long it took and the outcome.

    It never logs what was sent or answered. It sets the requestId of a `CallFailed` that passes through.
    """

    def __init__(self, method: RequestMethod, biz_order_no: str = "") -> None:
        self.method = method
        self.request_id = new_request_id()
        #: The outcome to log if nothing was raised.
        self.outcome = "answered" if method is RequestMethod.SINGLE_ORDER_QUERY else "accepted"
        self._biz_order_no = biz_order_no
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, CallFailed):
            error.request_id = self.request_id
        _log.info(
            "gateway_called",
            method=self.method.value,
            biz_order_no=self._biz_order_no,
            request_id=self.request_id,
            seconds=round(time.monotonic() - self._started, 3),
            outcome=self.outcome if error is None else _OUTCOMES.get(type(error), "unknown"),
        )


class GatewayClient:
    """Calls one merchant's gateway. Safe to share between threads. Each call has a connection of its own.

    Every method raises `ArgumentsInvalid` before anything is sent, `NotSent` if nothing can have been done, and
    `OutcomeUnknown` for a broken connection, no answer in time, any HTTP status but 200, and an unreadable answer. A
    call takes at most `timeout_seconds` of the settings. Only `query` retries.
    """

    def __init__(
        self,
        *,
        settings: GatewaySettings,
        amount_unit: AmountUnit,
        pay_types: Collection[str],
        clock: Callable[[], datetime],
        tracing: Tracing = NO_TRACING,
    ) -> None:
        """`pay_types` are the merchant's. `clock` returns aware times. Does not connect yet.

        Raises `UrlUnusable`, `PlainHttpRefused`, `CertificatesUnusable`, `DialectInvalid` and `KeyUnusable`.
        """
        self.timeout_seconds = settings.timeout_seconds
        self._not_found_messages = frozenset(settings.not_found_messages)
        self._pay_types = frozenset(pay_types)
        self._clock = clock
        self._withhold_args = SINGLE_WITHHOLD_ARGS[amount_unit]
        self._ua, self._aes_key = settings.ua, settings.aes_key
        self._dialect = RequestDialect.from_settings(settings.dialect)
        self._cipher = ArgsCipher(key=settings.aes_key.reveal(), dialect=self._dialect)
        self._transport = GatewayTransport(settings=settings, tracing=tracing)

    def pre_tie_card(self, args: PreTiedCardArgs) -> str:
        """Start to bind a card: the gateway sends its owner a code. Returns the binding's `unique_code`.

        Raises `Refused` for status -1, and `OutcomeUnknown` for a status that is neither 1 nor -1.
        """
        fields = self._check(PRE_TIED_CARD_ARGS, args)
        with _CallRecord(RequestMethod.PRE_TIED_CARD) as record:
            answer = self._call(record, fields, PRE_TIED_CARD_ANSWER)
            if answer.succeeded and answer.unique_code is not None:
                return answer.unique_code
            raise _failure(answer)

    def confirm_tied_card(self, args: ConfirmTiedCardArgs) -> str:
        """Confirm a binding with the code that the card's owner was sent. Returns the `protocol_no` for withholds.

        Raises `Refused` for status -1, and `OutcomeUnknown` for a status that is neither 1 nor -1.
        """
        fields = self._check(CONFIRM_TIED_CARD_ARGS, args)
        with _CallRecord(RequestMethod.CONFIRM_TIED_CARD) as record:
            answer = self._call(record, fields, CONFIRM_TIED_CARD_ANSWER)
            if answer.succeeded and answer.protocol_no is not None:
                return answer.protocol_no
            raise _failure(answer)

    def withhold(self, args: SingleWithholdArgs) -> AcceptedOrder:
        """Charge a card.

        Also raises `OutcomeUnknown` for an answer about another order and for any status but 1. For -1 that is a
        `WithholdRefused`: some gateways answer -1 for orders that they charge nevertheless.
        """
        fields = self._check(self._withhold_args, args)
        with _CallRecord(RequestMethod.SINGLE_WITHHOLD, args.biz_order_no) as record:
            answer = self._call(record, fields, ORDER_ANSWER)
            if answer.failed:
                raise WithholdRefused(f"{_describe(answer)}; it may charge all the same", message=answer.message)
            if not answer.succeeded or answer.order is None:
                raise OutcomeUnknown(f"{_describe(answer)}; it may charge all the same")
            if answer.order.biz_order_no != args.biz_order_no:
                raise OutcomeUnknown("the gateway answered about another order")
            return AcceptedOrder(order=answer.order, request_id=record.request_id)

    def query(self, biz_order_no: str, *, max_tries: int = len(_QUERY_PAUSES_SECONDS) + 1) -> QueriedOrder:
        """Query an order's status. Tries at most `max_tries` times within the time limit until an answer comes.

        The gateway has no such order if it answers with an order whose number is spelled differently, or with status -1
        and one of the merchant's `not_found_messages`. Raises `CallFailed` for no answer, for any other answer without
        status 1, and for an answer about another order.
        """
        fields = _write(SINGLE_ORDER_QUERY_ARGS, SingleOrderQueryArgs(biz_order_no=biz_order_no))
        deadline = time.monotonic() + self.timeout_seconds
        for pause_seconds in _QUERY_PAUSES_SECONDS[: max_tries - 1]:
            try:
                return self._query_once(biz_order_no, fields, deadline)
            except CallFailed:
                if time.monotonic() + pause_seconds >= deadline:
                    raise
            time.sleep(pause_seconds)
        return self._query_once(biz_order_no, fields, deadline)

    def _query_once(self, biz_order_no: str, fields: Mapping[str, JsonValue], deadline: float) -> QueriedOrder:
        asked_at = self._clock()
        with _CallRecord(RequestMethod.SINGLE_ORDER_QUERY, biz_order_no) as record:
            answer = self._call(record, fields, ORDER_ANSWER, deadline=deadline)
            order, message, other_spelling = answer.order, answer.message, False
            if answer.succeeded and order is not None:
                if order.biz_order_no != biz_order_no:
                    # A known order must not answer for other spellings of its number: there is no end of them.
                    if not is_other_spelling(order.biz_order_no, biz_order_no):
                        raise OutcomeUnknown("the gateway answered about another order")
                    order, message, other_spelling = None, "the gateway has it in another spelling only", True
            elif not answer.failed:
                raise OutcomeUnknown(_describe(answer))
            elif answer.message in self._not_found_messages:
                order = None
            else:
                raise OutcomeUnknown(f"{_describe(answer)}, which is none of the merchant's not_found_messages")
            if order is None:
                record.outcome = "not-found"
            return QueriedOrder(
                order=order,
                message=message,
                asked_at=asked_at,
                request_id=record.request_id,
                other_spelling=other_spelling,
            )

    def _check(self, message: MessageSchema[Args], args: Args) -> Mapping[str, JsonValue]:
        fields = _write(message, args)
        try:
            check_arguments(message.message_name, args, pay_types=self._pay_types)
        except MessageInvalid as error:
            raise ArgumentsInvalid(error) from error
        return fields

    def _call(
        self,
        record: _CallRecord,
        fields: Mapping[str, JsonValue],
        answer: MessageSchema[Answer],
        *,
        deadline: float | None = None,
    ) -> Answer:
        request = write_envelope(
            record.method,
            self._cipher.seal(fields),
            ua=self._ua,
            aes_key=self._aes_key,
            dialect=self._dialect,
            request_id=record.request_id,
            sent_at=self._clock(),
        )
        seconds = self.timeout_seconds if deadline is None else max(deadline - time.monotonic(), 0.001)
        response = self._transport.post(request, timeout_seconds=seconds)
        try:
            return answer.read(response.read_fields())
        except MessageInvalid as error:
            raise OutcomeUnknown(str(error)) from error


def _write(message: MessageSchema[Sent], sent: Sent) -> Mapping[str, JsonValue]:
    try:
        return message.write(sent)
    except MessageInvalid as error:
        raise ArgumentsInvalid(error) from error


def _failure(answer: GatewayAnswer) -> CallFailed:
    return Refused(_describe(answer)) if answer.failed else OutcomeUnknown(_describe(answer))


def _describe(answer: GatewayAnswer) -> str:
    status = (
        FAILED if answer.failed else f"{mask_personal(answer.status)[:_LONGEST_STATUS]!r}, which is neither 1 nor -1"
    )
    return f"the gateway answered status {status} ({mask_personal(answer.message)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayClients:
    """A client for each merchant whose gateway settings can be used, and the error of each other merchant."""

    usable: Mapping[str, GatewayClient]
    unusable: Mapping[str, GatewayError]


def make_client(
    merchant: MerchantSettings,
    gateway: GatewaySettings,
    *,
    clock: Callable[[], datetime],
    tracing: Tracing = NO_TRACING,
) -> GatewayClient:
    """A client of the merchant's `gateway`. Raises a `GatewayError` if its settings cannot be used."""
    return GatewayClient(
        settings=gateway,
        amount_unit=AmountUnit(merchant.amount_unit),
        pay_types=merchant.pay_types,
        clock=clock,
        tracing=tracing,
    )


def make_clients(
    merchants: Iterable[MerchantSettings], *, clock: Callable[[], datetime], tracing: Tracing = NO_TRACING
) -> GatewayClients:
    """A client for each merchant with a gateway. A mistake in one merchant's settings does not affect the others."""
    usable, unusable = {}, {}
    for merchant in merchants:
        if merchant.gateway is None:
            continue
        try:
            usable[merchant.slug] = make_client(merchant, merchant.gateway, clock=clock, tracing=tracing)
        except GatewayError as error:
            unusable[merchant.slug] = error
    return GatewayClients(usable=usable, unusable=unusable)
