"""The four methods of the document: a request comes in, an outcome goes out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from service.gateway.messages import RequestMethod
from service.sandbox.bindings import BindingRefused, Bindings
from service.sandbox.callback_renderer import pay_time
from service.sandbox.orders import BookFull, OrderBook, OrderTaken, SandboxOrder
from service.sandbox.requests import OpenedRequest, RequestRejected
from service.sandbox.script import AnswerMode, PayStatus, Script

_OK = "成功"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is answered, and how it reaches the caller."""

    message: str
    #: The document's 二级参数名. None is a failure: status -1, which says nothing about what was done.
    response: Mapping[str, str] | None = None
    mode: AnswerMode = AnswerMode.NORMAL


class Methods:
    """Routes a request, which keeps the document's rules, to its method."""

    def __init__(
        self,
        *,
        book: OrderBook,
        bindings: Bindings,
        not_found_message: str,
        strict_wait_pay: bool,
        write_script: Callable[[str, str], Script],
        on_accepted: Callable[[SandboxOrder], None],
    ) -> None:
        self._book = book
        self._bindings = bindings
        self._not_found_message = not_found_message
        self._strict_wait_pay = strict_wait_pay
        self._write_script = write_script
        self._on_accepted = on_accepted

    def call(self, request: OpenedRequest, *, now: datetime) -> Outcome:
        """What comes of a request. Raises RequestRejected, with the reason."""
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
        except BindingRefused as error:
            raise RequestRejected(str(error)) from error
        except BookFull as error:
            raise RequestRejected("沙箱已满") from error

    def _pre_tied_card(self, request: OpenedRequest) -> Outcome:
        binding = self._bindings.offer(
            ua=request.account.ua,
            bank_card_number=request.text("bank_card_number"),
            pay_type=_pay_type(request),
        )
        return Outcome(message=_OK, response={"unique_code": binding.unique_code})

    def _confirm_tied_card(self, request: OpenedRequest) -> Outcome:
        binding = self._bindings.confirm(
            ua=request.account.ua,
            unique_code=request.text("unique_code"),
            verification_code=request.text("verification_code"),
            bank_card_number=request.text("bank_card_number"),
            pay_type=request.text("pay_type"),
        )
        return Outcome(message=_OK, response={"protocol_no": binding.protocol_no})

    def _single_withhold(self, request: OpenedRequest, now: datetime) -> Outcome:
        pay_type = _pay_type(request)
        protocol_no = request.text("biz_data", "protocol_no")
        if protocol_no:
            binding = self._bindings.find(request.account.ua, protocol_no)
            if binding is None or binding.pay_type != pay_type:
                raise RequestRejected("协议号不存在")
        script = self._write_script(request.text("biz_order_no"), request.text("amount"))
        if script.answer is AnswerMode.REFUSED:
            return Outcome(message="渠道拒绝", mode=AnswerMode.REFUSED)
        try:
            order = self._book.accept(
                ua=request.account.ua,
                biz_order_no=request.text("biz_order_no"),
                pay_type=pay_type,
                amount=request.text("amount"),
                notify_url=request.text("notify_url"),
                script=script,
                now=now,
            )
        except OrderTaken as error:
            raise RequestRejected("业务流水号已存在") from error
        self._on_accepted(order)
        if script.answer is AnswerMode.DENIED:
            return Outcome(message="系统繁忙", mode=AnswerMode.DENIED)
        status = order.status_at(now).outside_queries(strict=self._strict_wait_pay)
        return Outcome(message=_OK, response=_statement(order, status), mode=script.answer)

    def _single_order_query(self, request: OpenedRequest, now: datetime) -> Outcome:
        order = self._book.find(request.account.ua, request.text("biz_order_no"))
        if order is None:
            raise RequestRejected(self._not_found_message)
        return Outcome(message=_OK, response=_statement(order, order.status_at(now)))


def _pay_type(request: OpenedRequest) -> str:
    pay_type = request.text("pay_type")
    if pay_type not in request.account.pay_types:
        raise RequestRejected("支付类型不存在")
    return pay_type


def _statement(order: SandboxOrder, status: PayStatus) -> Mapping[str, str]:
    return {
        "biz_order_no": order.biz_order_no,
        "pay_order_no": order.pay_order_no,
        "pay_type": order.pay_type,
        "pay_status": status.value,
        "pay_time": pay_time(status, order.settles_at),
        "channel_response": order.channel_response(status),
    }
