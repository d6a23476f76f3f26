"""The sandbox gateway: its parts, put together."""

import threading
from collections.abc import Callable
from datetime import datetime

from service.gateway.messages import RequestMethod
from service.sandbox.bindings import Bindings
from service.sandbox.callback_plan import plan_callbacks
from service.sandbox.callback_renderer import CallbackRenderer
from service.sandbox.callback_sender import CallbackSender
from service.sandbox.counters import Counters
from service.sandbox.methods import Answer, Methods
from service.sandbox.orders import OrderBook, SandboxOrder
from service.sandbox.requests import RequestOpener, RequestRejected
from service.sandbox.script import CallbackMode, Rule, Script, write_script
from service.sandbox.settings import SandboxSettings


class SandboxGateway:
    """One gateway with its orders. Safe to use from many threads; `start` begins to call back, `close` ends it."""

    def __init__(self, *, settings: SandboxSettings, clock: Callable[[], datetime]) -> None:
        self.counters = Counters()
        self.book = OrderBook(timing=settings.timing, max_orders=settings.max_entries)
        self.bindings = Bindings(verification_code=settings.verification_code, max_bindings=settings.max_entries)
        #: Set by `close`: a stalled answer waits for it no longer.
        self.closed = threading.Event()
        #: How long a stalled answer takes.
        self.stall_seconds = settings.timing.stall_seconds
        self._settings = settings
        self._clock = clock
        self._rules: tuple[Rule, ...] = ()
        self._opener = RequestOpener(settings.accounts)
        self._sender = CallbackSender(
            settings=settings, renderer=CallbackRenderer(settings.callback), book=self.book, counters=self.counters
        )
        self._methods = Methods(
            book=self.book,
            bindings=self.bindings,
            not_found_message=settings.not_found_message,
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

    def answer(self, body: bytes) -> Answer:
        """The answer to a raw request body, whatever it holds."""
        try:
            request = self._opener.open(body)
        except RequestRejected as error:
            return Answer.failure(str(error))
        answer = self._methods.call(request, now=self.now())
        if request.method is RequestMethod.SINGLE_WITHHOLD:
            self.counters.record_withhold(answer.mode)
        return answer

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
        self._sender.schedule(plan_callbacks(order, odds=self._settings.misbehaviour, seed=self._settings.seed))
