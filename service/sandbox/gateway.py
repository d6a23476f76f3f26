"""The sandbox gateway: its parts, put together."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import cycle

from service.gateway.messages import RequestMethod
from service.gateway.strict_json import JsonValue
from service.sandbox.bindings import Bindings
from service.sandbox.breach_log import BreachLog
from service.sandbox.callback_plan import plan_callbacks
from service.sandbox.callback_renderer import CallbackRenderer
from service.sandbox.callback_sender import CallbackSender
from service.sandbox.counters import Counters
from service.sandbox.document_rules import MAX_MESSAGE_CHARACTERS, DocumentRule
from service.sandbox.methods import Methods, Outcome
from service.sandbox.orders import OrderBook, SandboxOrder
from service.sandbox.requests import HttpRequest, RequestReader, RequestRejected
from service.sandbox.script import AnswerMode, CallbackMode, Rule, Script, write_script
from service.sandbox.settings import EmptyResponse, SandboxSettings

_EMPTY_RESPONSES: Mapping[EmptyResponse, Mapping[str, JsonValue]] = {
    EmptyResponse.NULL: {"response": None},
    EmptyResponse.LIST: {"response": []},
    EmptyResponse.OBJECT: {"response": {}},
    EmptyResponse.STRING: {"response": ""},
    EmptyResponse.ABSENT: {},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is answered, and how it reaches the caller."""

    fields: Mapping[str, JsonValue]
    mode: AnswerMode


class SandboxGateway:
    """One gateway with its orders. Safe to use from many threads; `start` begins to call back, `close` ends it."""

    def __init__(self, *, settings: SandboxSettings, clock: Callable[[], datetime]) -> None:
        self.counters = Counters()
        self.breach_log = BreachLog(clock=clock)
        self.book = OrderBook(timing=settings.timing, max_orders=settings.max_entries)
        self.bindings = Bindings(verification_code=settings.verification_code, max_bindings=settings.max_entries)
        #: Set by `close`: a stalled answer waits for it no longer.
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
        self._methods = Methods(
            book=self.book,
            bindings=self.bindings,
            not_found_message=settings.not_found_message,
            strict_wait_pay=self._strict_wait_pay,
            write_script=self._write_script,
            on_accepted=self._call_back,
        )

    def start(self) -> None:
        """Begin to call back."""
        self._sender.start()

    def close(self) -> None:
        """Stop calling back, and let go of stalled callers. Safe to call twice."""
        self.closed.set()
        self._sender.close()

    def now(self) -> datetime:
        """The sandbox's time, aware."""
        return self._clock()

    def answer(self, request: HttpRequest) -> Answer:
        """The answer to a request, whatever it holds."""
        try:
            opened = self._reader.read(request)
        except RequestRejected as error:
            return self._write(Outcome(message=str(error)))
        try:
            outcome = self._methods.call(opened, now=self.now())
        except RequestRejected as error:
            outcome = Outcome(message=str(error))
        if opened.method is RequestMethod.SINGLE_WITHHOLD:
            self.counters.record_withhold(outcome.mode)
        return self._write(outcome)

    def rules(self) -> tuple[Rule, ...]:
        """The testers' rules, the one that is asked first in front."""
        return self._rules

    def add_rule(self, rule: Rule) -> None:
        """Ask this rule before all others, from the next order on."""
        self._rules = (rule, *self._rules)

    def outstanding(self) -> int:
        """How many callbacks are still to be sent."""
        return self._sender.outstanding()

    def _write_script(self, biz_order_no: str, amount: str) -> Script:
        return write_script(biz_order_no, amount, rules=self._rules, settings=self._settings)

    def _call_back(self, order: SandboxOrder) -> None:
        if order.notify_url and order.script.callbacks is CallbackMode.SILENT:
            self.counters.record_dropped()
        self._sender.schedule(
            plan_callbacks(
                order,
                odds=self._settings.misbehaviour,
                seed=self._settings.seed,
                strict_wait_pay=self._strict_wait_pay,
            )
        )

    def _write(self, outcome: Outcome) -> Answer:
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
        return Answer(fields=fields, mode=outcome.mode)
