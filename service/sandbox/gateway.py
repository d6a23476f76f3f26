"""The sandbox gateway: the four methods of the document, and the callbacks that follow a withhold."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import cycle

from service.gateway.bodies import JsonValue
from service.gateway.requests import RequestMethod
from service.sandbox.callback_plan import plan_callbacks
from service.sandbox.callback_renderer import CallbackRenderer, pay_time
from service.sandbox.callback_sender import CallbackSender, Counters
from service.sandbox.document_rules import MAX_MESSAGE_CHARACTERS, DocumentRule
from service.sandbox.orders import BindingRefused, Bindings, BookFull, OrderBook, OrderTaken, SandboxOrder
from service.sandbox.requests import BreachLog, HttpRequest, OpenedRequest, RequestReader, RequestRejected
from service.sandbox.script import AnswerMode, CallbackMode, PayStatus, Rule, write_script
from service.sandbox.settings import EmptyResponse, SandboxSettings

_OK = "成功"
_EMPTY_RESPONSES: Mapping[EmptyResponse, Mapping[str, JsonValue]] = {
    EmptyResponse.NULL: {"response": None},
    EmptyResponse.LIST: {"response": []},
    EmptyResponse.OBJECT: {"response": {}},
    EmptyResponse.STRING: {"response": ""},
    EmptyResponse.ABSENT: {},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """The outcome of a request."""

    message: str
    #: The document's 二级参数名. None is a failure: status -1, which says nothing about what was done.
    response: Mapping[str, str] | None = None
    mode: AnswerMode = AnswerMode.NORMAL


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxAnswer:
    """An answer's fields, and how it reaches the caller."""

    fields: Mapping[str, JsonValue]
    mode: AnswerMode


class SandboxGateway:
    """A gateway with its orders. Safe to use from many threads. `start` and `close` start and end its callbacks."""

    def __init__(self, *, settings: SandboxSettings, clock: Callable[[], datetime]) -> None:
        self.counters = Counters()
        self.breach_log = BreachLog(clock=clock)
        self.book = OrderBook(timing=settings.timing, max_orders=settings.max_entries)
        self.bindings = Bindings(verification_code=settings.verification_code, max_bindings=settings.max_entries)
        #: Set by `close`. It ends the wait of stalled answers.
        self.closed = threading.Event()
        #: How long a stalled answer takes.
        self.stall_seconds = settings.timing.stall_seconds
        #: The rules of the document that are enforced.
        self.strictness = settings.strictness
        self._settings = settings
        self._clock = clock
        self._rules: tuple[Rule, ...] = ()
        self._strict_wait_pay = DocumentRule.WAIT_PAY in self.strictness
        self._empty_responses = cycle(settings.empty_responses)
        self._turn = threading.Lock()
        self._reader = RequestReader(settings=settings, breach_log=self.breach_log)
        self._sender = CallbackSender(
            settings=settings, renderer=CallbackRenderer(settings.callback), book=self.book, counters=self.counters
        )

    def start(self) -> None:
        """Start to send callbacks."""
        self._sender.start()

    def close(self) -> None:
        """Stop sending callbacks, and end stalled answers. Safe to call twice."""
        self.closed.set()
        self._sender.close()

    def now(self) -> datetime:
        """The sandbox's time, aware."""
        return self._clock()

    def answer(self, request: HttpRequest) -> SandboxAnswer:
        """Answer a request. Any request gets an answer."""
        try:
            opened = self._reader.read(request)
        except RequestRejected as error:
            return self._write(_Outcome(message=str(error)))
        try:
            outcome = self._call(opened, self.now())
        except RequestRejected as error:
            outcome = _Outcome(message=str(error))
        if opened.method is RequestMethod.SINGLE_WITHHOLD:
            self.counters.count(f"withholds_{outcome.mode}")
        return self._write(outcome)

    def rules(self) -> tuple[Rule, ...]:
        """The testers' rules. The first that matches an order decides."""
        return self._rules

    def add_rule(self, rule: Rule) -> None:
        """Put a rule before all others. It applies to later orders."""
        self._rules = (rule, *self._rules)

    def outstanding(self) -> int:
        """How many callbacks are still to be sent."""
        return self._sender.outstanding()

    def _call(self, request: OpenedRequest, now: datetime) -> _Outcome:
        """Route the request to its method. Raises RequestRejected, with the reason."""
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

    def _pre_tied_card(self, request: OpenedRequest) -> _Outcome:
        binding = self.bindings.offer(
            ua=request.account.ua,
            bank_card_number=request.text("bank_card_number"),
            pay_type=_pay_type(request),
        )
        return _Outcome(message=_OK, response={"unique_code": binding.unique_code})

    def _confirm_tied_card(self, request: OpenedRequest) -> _Outcome:
        binding = self.bindings.confirm(
            ua=request.account.ua,
            unique_code=request.text("unique_code"),
            verification_code=request.text("verification_code"),
            bank_card_number=request.text("bank_card_number"),
            pay_type=request.text("pay_type"),
        )
        return _Outcome(message=_OK, response={"protocol_no": binding.protocol_no})

    def _single_withhold(self, request: OpenedRequest, now: datetime) -> _Outcome:
        pay_type = _pay_type(request)
        protocol_no = request.text("biz_data", "protocol_no")
        if protocol_no:
            binding = self.bindings.find(request.account.ua, protocol_no)
            if binding is None or binding.pay_type != pay_type:
                raise RequestRejected("协议号不存在")
        script = write_script(
            request.text("biz_order_no"), request.text("amount"), rules=self._rules, settings=self._settings
        )
        if script.answer is AnswerMode.REFUSED:
            return _Outcome(message="渠道拒绝", mode=AnswerMode.REFUSED)
        try:
            order = self.book.accept(
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
        self._call_back(order)
        if script.answer is AnswerMode.DENIED:
            return _Outcome(message="系统繁忙", mode=AnswerMode.DENIED)
        status = order.status_at(now).outside_queries(strict=self._strict_wait_pay)
        return _Outcome(message=_OK, response=_statement(order, status), mode=script.answer)

    def _single_order_query(self, request: OpenedRequest, now: datetime) -> _Outcome:
        order = self.book.find(request.account.ua, request.text("biz_order_no"))
        if order is None or not order.is_seen_at(now):
            raise RequestRejected(self._settings.not_found_message)
        return _Outcome(message=_OK, response=_statement(order, order.status_at(now)))

    def _call_back(self, order: SandboxOrder) -> None:
        if order.notify_url and order.script.callbacks is CallbackMode.SILENT:
            self.counters.count("dropped")
        self._sender.schedule(
            plan_callbacks(
                order,
                odds=self._settings.misbehaviour,
                seed=self._settings.seed,
                strict_wait_pay=self._strict_wait_pay,
            )
        )

    def _write(self, outcome: _Outcome) -> SandboxAnswer:
        message = outcome.message
        if DocumentRule.MESSAGE_LENGTH in self.strictness and len(message) > MAX_MESSAGE_CHARACTERS:
            message = f"{message[: MAX_MESSAGE_CHARACTERS - 1]}…"
        fields: dict[str, JsonValue]
        if outcome.response is not None:
            fields = {"status": "1", "message": message, "response": dict(outcome.response)}
        else:
            with self._turn:
                empty = next(self._empty_responses)
            fields = {"status": "-1", "message": message, **_EMPTY_RESPONSES[empty]}
        return SandboxAnswer(fields=fields, mode=outcome.mode)


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
