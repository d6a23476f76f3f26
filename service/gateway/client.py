"""Speaks to the gateway (document: 调用说明, 接口明细). Each call says which holds: not done, done, or unknown."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self, TypeVar

import structlog

from service.config.settings import GatewaySettings, MerchantSettings
from service.domain.masking import mask_personal
from service.domain.order_numbers import is_other_spelling
from service.gateway.arguments import PersonalArgs, check_arguments
from service.gateway.cipher import RequestDialect
from service.gateway.errors import (
    ArgumentsInvalid,
    CallFailed,
    GatewayError,
    MessageInvalid,
    NotSent,
    OutcomeUnknown,
    Refused,
)
from service.gateway.messages import (
    FAILED,
    AmountUnit,
    ConfirmTiedCardArgs,
    GatewayAnswer,
    OrderAnswer,
    OrderStatement,
    PreTiedCardArgs,
    RequestMethod,
    SingleOrderQueryArgs,
    SingleWithholdArgs,
)
from service.gateway.request_envelope import EnvelopeSealer, new_request_id
from service.gateway.schemas import (
    CONFIRM_TIED_CARD_ANSWER,
    CONFIRM_TIED_CARD_ARGS,
    ORDER_ANSWER,
    PRE_TIED_CARD_ANSWER,
    PRE_TIED_CARD_ARGS,
    SINGLE_ORDER_QUERY_ARGS,
    SINGLE_WITHHOLD_ARGS,
    MessageSchema,
)
from service.gateway.strict_json import JsonValue
from service.gateway.transport import Channel

_log = structlog.get_logger(__name__)
Answer = TypeVar("Answer")
Args = TypeVar("Args", bound=PersonalArgs)
Sent = TypeVar("Sent")
# Before the second and the third try. Asking twice is harmless, and a broken connection is usually whole the next time.
_QUERY_PAUSES_SECONDS = (0.2, 0.5)
_LONGEST_STATUS = 40
_OUTCOMES: Mapping[type[BaseException], str] = {NotSent: "not-sent", Refused: "refused"}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueriedOrder:
    """What the gateway answered when it was asked for an order."""

    #: Its `order` is the one that was asked for, or None where the gateway knows of no such order.
    answer: OrderAnswer
    #: When it was asked, aware; not when it answered.
    asked_at: datetime
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedOrder:
    """An order that the gateway has accepted, in its words. That it was paid, they do not say."""

    order: OrderStatement
    request_id: str


class CallRecord:
    """Logs, at the end of its `with`, which method was called about which order, how long it took and how it ended.

    Never what was sent or answered. A `CallFailed` that passes through learns the requestId.
    """

    def __init__(self, method: RequestMethod, biz_order_no: str = "") -> None:
        self.method = method
        self.request_id = new_request_id()
        #: What the log says where nothing was raised.
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
            "gateway.called",
            method=self.method.value,
            biz_order_no=self._biz_order_no,
            request_id=self.request_id,
            seconds=round(time.monotonic() - self._started, 3),
            outcome=self.outcome if error is None else _OUTCOMES.get(type(error), "unknown"),
        )


class GatewayClient:
    """The gateway, in one merchant's name. Safe to share between threads. Each call has a connection of its own.

    Every method raises `ArgumentsInvalid` before anything is sent, `NotSent` where nothing can have been done, and
    `OutcomeUnknown` for a broken connection, no answer in time, any HTTP status but 200, and an answer that cannot be
    read. A whole call takes `timeout_seconds` of the settings at most. Only `query` is ever tried again by itself.
    """

    def __init__(
        self,
        *,
        settings: GatewaySettings,
        amount_unit: AmountUnit,
        pay_types: Collection[str],
        clock: Callable[[], datetime],
    ) -> None:
        """`pay_types` are the merchant's, `clock` gives aware times. Connects to nothing yet.

        Raises `UrlUnusable`, `PlainHttpRefused`, `CertificatesUnusable`, `DialectInvalid` and `KeyUnusable`.
        """
        self._timeout_seconds = settings.timeout_seconds
        self._not_found_messages = frozenset(settings.not_found_messages)
        self._pay_types = frozenset(pay_types)
        self._clock = clock
        self._withhold_args = SINGLE_WITHHOLD_ARGS[amount_unit]
        self._sealer = EnvelopeSealer(
            ua=settings.ua,
            aes_key=settings.aes_key,
            dialect=RequestDialect.from_settings(settings.dialect),
            clock=clock,
        )
        self._channel = Channel(settings=settings)

    def pre_tie_card(self, args: PreTiedCardArgs) -> str:
        """Ask for a card to be bound: its owner is sent a code. Returns the binding's `unique_code`.

        Raises `Refused` for status -1, and `OutcomeUnknown` for one that is neither 1 nor -1.
        """
        fields = self._check(PRE_TIED_CARD_ARGS, args)
        with CallRecord(RequestMethod.PRE_TIED_CARD) as record:
            answer = self._ask(record, fields, PRE_TIED_CARD_ANSWER)
            if answer.succeeded and answer.unique_code is not None:
                return answer.unique_code
            raise _refusal(answer)

    def confirm_tied_card(self, args: ConfirmTiedCardArgs) -> str:
        """Confirm a binding with the code that the card's owner was sent. Returns the `protocol_no` to charge it by.

        Raises `Refused` for status -1, and `OutcomeUnknown` for one that is neither 1 nor -1.
        """
        fields = self._check(CONFIRM_TIED_CARD_ARGS, args)
        with CallRecord(RequestMethod.CONFIRM_TIED_CARD) as record:
            answer = self._ask(record, fields, CONFIRM_TIED_CARD_ANSWER)
            if answer.succeeded and answer.protocol_no is not None:
                return answer.protocol_no
            raise _refusal(answer)

    def withhold(self, args: SingleWithholdArgs) -> AcceptedOrder:
        """Charge a card.

        Raises `OutcomeUnknown` for an answer about another order as well, and for any status but 1: with -1, too,
        gateways of this kind answer for orders that they charge all the same.
        """
        fields = self._check(self._withhold_args, args)
        with CallRecord(RequestMethod.SINGLE_WITHHOLD, args.biz_order_no) as record:
            answer = self._ask(record, fields, ORDER_ANSWER)
            if not answer.succeeded or answer.order is None:
                raise OutcomeUnknown(f"{_said(answer)}; it may charge all the same")
            if answer.order.biz_order_no != args.biz_order_no:
                raise OutcomeUnknown("the gateway answered about another order")
            return AcceptedOrder(order=answer.order, request_id=record.request_id)

    def query(self, biz_order_no: str, *, most_tries: int = len(_QUERY_PAUSES_SECONDS) + 1) -> QueriedOrder:
        """Ask for an order's status, up to three times within the time limit where no answer comes.

        `most_tries` of 1 is for who counts questions: each try is one to the gateway.

        An answer about an order of another spelling says that there is none of this one. Raises any kind of
        `CallFailed` where there is no answer: also for one about another order, and for any status but 1, unless it is
        -1 with one of the merchant's `not_found_messages`.
        """
        fields = _write(SINGLE_ORDER_QUERY_ARGS, SingleOrderQueryArgs(biz_order_no=biz_order_no))
        deadline = time.monotonic() + self._timeout_seconds
        for pause_seconds in _QUERY_PAUSES_SECONDS[: most_tries - 1]:
            try:
                return self._query_once(biz_order_no, fields, deadline)
            except CallFailed:
                if time.monotonic() + pause_seconds >= deadline:
                    raise
            time.sleep(pause_seconds)
        return self._query_once(biz_order_no, fields, deadline)

    def _query_once(self, biz_order_no: str, fields: Mapping[str, JsonValue], deadline: float) -> QueriedOrder:
        asked_at = self._clock()
        with CallRecord(RequestMethod.SINGLE_ORDER_QUERY, biz_order_no) as record:
            answer = self._ask(record, fields, ORDER_ANSWER, deadline=deadline)
            if answer.succeeded and answer.order is not None:
                if answer.order.biz_order_no == biz_order_no:
                    return QueriedOrder(answer=answer, asked_at=asked_at, request_id=record.request_id)
                # Else one known order would make any number of unknown ones that can be asked for without end.
                if not is_other_spelling(answer.order.biz_order_no, biz_order_no):
                    raise OutcomeUnknown("the gateway answered about another order")
                message = "the gateway has it in another spelling only"
            elif answer.failed and answer.message in self._not_found_messages:
                message = answer.message
            elif answer.failed:
                raise OutcomeUnknown(f"{_said(answer)}, which is none of the merchant's not_found_messages")
            else:
                raise OutcomeUnknown(_said(answer))
            record.outcome = "not-found"
            unknown = OrderAnswer(status=FAILED, message=message)
            return QueriedOrder(answer=unknown, asked_at=asked_at, request_id=record.request_id)

    def _check(self, message: MessageSchema[Args], args: Args) -> Mapping[str, JsonValue]:
        fields = _write(message, args)
        try:
            check_arguments(message.message_name, args, pay_types=self._pay_types)
        except MessageInvalid as error:
            raise ArgumentsInvalid(error) from error
        return fields

    def _ask(
        self,
        record: CallRecord,
        fields: Mapping[str, JsonValue],
        answer: MessageSchema[Answer],
        *,
        deadline: float | None = None,
    ) -> Answer:
        request = self._sealer.seal(record.method, fields, request_id=record.request_id)
        seconds = self._timeout_seconds if deadline is None else max(deadline - time.monotonic(), 0.001)
        raw = self._channel.post(request, timeout_seconds=seconds)
        try:
            return answer.read(raw.fields())
        except MessageInvalid as error:
            raise OutcomeUnknown(str(error)) from error


def _write(message: MessageSchema[Sent], sent: Sent) -> Mapping[str, JsonValue]:
    try:
        return message.write(sent)
    except MessageInvalid as error:
        raise ArgumentsInvalid(error) from error


def _refusal(answer: GatewayAnswer) -> CallFailed:
    return Refused(_said(answer)) if answer.failed else OutcomeUnknown(_said(answer))


def _said(answer: GatewayAnswer) -> str:
    status = (
        FAILED if answer.failed else f"{mask_personal(answer.status)[:_LONGEST_STATUS]!r}, which is neither 1 nor -1"
    )
    return f"the gateway answered status {status} ({mask_personal(answer.message)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayClients:
    """What came of the settings of every merchant that has a gateway, by merchant."""

    usable: Mapping[str, GatewayClient]
    unusable: Mapping[str, GatewayError]


def make_client(
    merchant: MerchantSettings, gateway: GatewaySettings, *, clock: Callable[[], datetime]
) -> GatewayClient:
    """Speaks in the merchant's name to its `gateway`. Raises a `GatewayError` where those settings cannot be used."""
    return GatewayClient(
        settings=gateway, amount_unit=AmountUnit(merchant.amount_unit), pay_types=merchant.pay_types, clock=clock
    )


def make_clients(merchants: Iterable[MerchantSettings], *, clock: Callable[[], datetime]) -> GatewayClients:
    """A client for each merchant with a gateway; one merchant's mistake is no other's."""
    usable, unusable = {}, {}
    for merchant in merchants:
        if merchant.gateway is None:
            continue
        try:
            usable[merchant.slug] = make_client(merchant, merchant.gateway, clock=clock)
        except GatewayError as error:
            unusable[merchant.slug] = error
    return GatewayClients(usable=usable, unusable=unusable)
