"""The four methods of the document, each: arguments in, answer out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from service.gateway.errors import MessageInvalid
from service.gateway.messages import (
    AmountUnit,
    ConfirmTiedCardAnswer,
    OrderAnswer,
    OrderStatement,
    PreTiedCardAnswer,
    RequestMethod,
    SingleWithholdArgs,
)
from service.gateway.schemas import (
    CONFIRM_TIED_CARD_ANSWER,
    CONFIRM_TIED_CARD_ARGS,
    ORDER_ANSWER,
    PRE_TIED_CARD_ANSWER,
    PRE_TIED_CARD_ARGS,
    SINGLE_ORDER_QUERY_ARGS,
    SINGLE_WITHHOLD_ARGS,
)
from service.gateway.tokens import JsonValue
from service.sandbox.bindings import BindingRefused, Bindings
from service.sandbox.callback_renderer import pay_time
from service.sandbox.orders import BookFull, OrderBook, OrderTaken, SandboxOrder
from service.sandbox.requests import OpenedRequest, RequestRejected
from service.sandbox.script import AnswerMode, PayStatus, Script
from service.sandbox.settings import Account

_OK = "成功"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is answered, and how it reaches the caller."""

    fields: Mapping[str, JsonValue]
    mode: AnswerMode = AnswerMode.NORMAL

    @classmethod
    def failure(cls, message: str, mode: AnswerMode = AnswerMode.NORMAL) -> "Answer":
        """Status -1, which says nothing about what was done."""
        return cls(fields={"status": "-1", "message": message, "response": {}}, mode=mode)


class Methods:
    """Routes a request to its method and checks its arguments as the document has them."""

    def __init__(
        self,
        *,
        book: OrderBook,
        bindings: Bindings,
        not_found_message: str,
        write_script: Callable[[str, str], Script],
        on_accepted: Callable[[SandboxOrder], None],
    ) -> None:
        self._book = book
        self._bindings = bindings
        self._not_found_message = not_found_message
        self._write_script = write_script
        self._on_accepted = on_accepted

    def call(self, request: OpenedRequest, *, now: datetime) -> Answer:
        """The answer to a request; one that is refused is answered with status -1 and the reason."""
        try:
            match request.method:
                case RequestMethod.PRE_TIED_CARD:
                    return self._pre_tied_card(request)
                case RequestMethod.CONFIRM_TIED_CARD:
                    return self._confirm_tied_card(request)
                case RequestMethod.SINGLE_WITHHOLD:
                    return self._single_withhold(request, now)
                case RequestMethod.SINGLE_ORDER_QUERY:
                    return self._single_order_query(request, now)
        except (RequestRejected, BindingRefused) as error:
            return Answer.failure(str(error))
        except MessageInvalid as error:
            return Answer.failure(f"参数错误: {error}")
        except BookFull:
            return Answer.failure("沙箱已满")

    def _pre_tied_card(self, request: OpenedRequest) -> Answer:
        args = PRE_TIED_CARD_ARGS.read(request.args)
        _check_pay_type(request.account, args.pay_type)
        binding = self._bindings.offer(
            ua=request.account.ua, bank_card_number=args.bank_card_number, pay_type=args.pay_type
        )
        answer = PreTiedCardAnswer(succeeded=True, message=_OK, unique_code=binding.unique_code)
        return Answer(fields=PRE_TIED_CARD_ANSWER.write(answer))

    def _confirm_tied_card(self, request: OpenedRequest) -> Answer:
        args = CONFIRM_TIED_CARD_ARGS.read(request.args)
        binding = self._bindings.confirm(
            ua=request.account.ua,
            unique_code=args.unique_code,
            verification_code=args.verification_code,
            bank_card_number=args.bank_card_number,
            pay_type=args.pay_type,
        )
        answer = ConfirmTiedCardAnswer(succeeded=True, message=_OK, protocol_no=binding.protocol_no)
        return Answer(fields=CONFIRM_TIED_CARD_ANSWER.write(answer))

    def _single_withhold(self, request: OpenedRequest, now: datetime) -> Answer:
        args = SINGLE_WITHHOLD_ARGS[AmountUnit(request.account.amount_unit)].read(request.args)
        self._check_withhold(request.account, args)
        script = self._write_script(args.biz_order_no, args.amount)
        if script.answer is AnswerMode.REFUSED:
            return Answer.failure("渠道拒绝", AnswerMode.REFUSED)
        try:
            order = self._book.accept(
                ua=request.account.ua,
                biz_order_no=args.biz_order_no,
                pay_type=args.pay_type,
                amount=args.amount,
                notify_url=args.notify_url or "",
                script=script,
                now=now,
            )
        except OrderTaken:
            return Answer.failure("业务流水号已存在")
        self._on_accepted(order)
        if script.answer is AnswerMode.DENIED:
            return Answer.failure("系统繁忙", AnswerMode.DENIED)
        # A withhold's answer knows no wait_pay (document, 3. 单笔代扣接口).
        status = order.status_at(now)
        return _about(order, PayStatus.PENDING if status is PayStatus.WAIT_PAY else status, script.answer)

    def _single_order_query(self, request: OpenedRequest, now: datetime) -> Answer:
        args = SINGLE_ORDER_QUERY_ARGS.read(request.args)
        order = self._book.find(request.account.ua, args.biz_order_no)
        if order is None:
            return Answer.failure(self._not_found_message)
        return _about(order, order.status_at(now), AnswerMode.NORMAL)

    def _check_withhold(self, account: Account, args: SingleWithholdArgs) -> None:
        _check_pay_type(account, args.pay_type)
        if args.notify_url and not _has_host(args.notify_url):
            raise RequestRejected("异步回调地址错误")
        if args.protocol_no:
            binding = self._bindings.find(account.ua, args.protocol_no)
            if binding is None or binding.pay_type != args.pay_type:
                raise RequestRejected("协议号不存在")


def _check_pay_type(account: Account, pay_type: str) -> None:
    if pay_type not in account.pay_types:
        raise RequestRejected("支付类型不存在")


def _has_host(url: str) -> bool:
    try:
        return bool(urlsplit(url).hostname)
    except ValueError:
        return False


def _about(order: SandboxOrder, status: PayStatus, mode: AnswerMode) -> Answer:
    statement = OrderStatement(
        biz_order_no=order.biz_order_no,
        pay_order_no=order.pay_order_no,
        pay_type=order.pay_type,
        pay_status=status,
        pay_time=pay_time(status, order.settles_at),
        channel_response=order.channel_response(status),
    )
    return Answer(fields=ORDER_ANSWER.write(OrderAnswer(succeeded=True, message=_OK, order=statement)), mode=mode)
