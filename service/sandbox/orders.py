"""What the sandbox keeps in memory: the orders that it has accepted, and the cards that were bound."""

import secrets
import threading
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count

from service.sandbox.script import PayStatus, Script, SettleSpeed
from service.sandbox.settings import Timing

_FAILURE = "余额不足"


class OrderTaken(Exception):
    """An order with this number exists."""


class BookFull(Exception):
    """The limit of entries is reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOrder:
    """One accepted withhold."""

    ua: str
    biz_order_no: str
    pay_order_no: str
    pay_type: str
    amount: str
    #: "": none was given, and there are no callbacks.
    notify_url: str
    script: Script
    #: Aware.
    accepted_at: datetime
    #: When it becomes terminal, aware; None for never.
    settles_at: datetime | None

    def status_at(self, now: datetime) -> PayStatus:
        """The true status at `now`."""
        if self.settles_at is not None and now >= self.settles_at:
            return self.script.ending
        return self.script.waiting

    def is_seen_at(self, now: datetime) -> bool:
        """Whether queries find it at `now`."""
        return not self.script.unseen or (self.settles_at is not None and now >= self.settles_at)

    def channel_response(self, status: PayStatus) -> str:
        """The payment channel's message if it failed, else ""."""
        return _FAILURE if status is PayStatus.FAIL else ""


class OrderBook:
    """All orders, in memory. Safe to use from many threads."""

    def __init__(self, *, timing: Timing, max_orders: int) -> None:
        self._timing = timing
        self._max_orders = max_orders
        self._orders: dict[tuple[str, str], SandboxOrder] = {}
        #: The last two orders with a notify_url, by ua.
        self._addressed: dict[str, deque[SandboxOrder]] = {}
        self._numbers = count(1)
        self._lock = threading.Lock()

    def accept(
        self, *, ua: str, biz_order_no: str, pay_type: str, amount: str, notify_url: str, script: Script, now: datetime
    ) -> SandboxOrder:
        """Make an order. Raises OrderTaken if its number exists, and BookFull."""
        key = ua, biz_order_no
        with self._lock:
            if key in self._orders:
                raise OrderTaken
            if len(self._orders) >= self._max_orders:
                raise BookFull
            order = SandboxOrder(
                ua=ua,
                biz_order_no=biz_order_no,
                pay_order_no=f"SB{now:%Y%m%d}{next(self._numbers):010d}",
                pay_type=pay_type,
                amount=amount,
                notify_url=notify_url,
                script=script,
                accepted_at=now,
                settles_at=self._settles_at(script, now),
            )
            self._orders[key] = order
            if notify_url:
                self._addressed.setdefault(ua, deque(maxlen=2)).append(order)
            return order

    def find(self, ua: str, biz_order_no: str) -> SandboxOrder | None:
        """The order of this `ua` with that number; None if there is none."""
        with self._lock:
            return self._orders.get((ua, biz_order_no))

    def neighbour(self, order: SandboxOrder) -> SandboxOrder | None:
        """Another order of the same `ua` with a notify_url; None if there is none."""
        with self._lock:
            for other in self._addressed.get(order.ua, ()):
                if other is not order:
                    return other
        return None

    def all(self) -> list[SandboxOrder]:
        """Every order, oldest first."""
        with self._lock:
            return list(self._orders.values())

    def _settles_at(self, script: Script, now: datetime) -> datetime | None:
        match script.speed:
            case SettleSpeed.STUCK:
                return None
            case SettleSpeed.INSTANT:
                return now
            case SettleSpeed.SLOW:
                return now + timedelta(seconds=self._timing.slow_settle_seconds)
            case SettleSpeed.NORMAL:
                return now + timedelta(seconds=self._timing.settle_seconds)


class BindingRefused(Exception):
    """A confirmation that fits no binding. The message is the gateway's, for the caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """One card of one person, for one `pay_type`."""

    ua: str
    bank_card_number: str
    pay_type: str
    unique_code: str
    verification_code: str
    #: The number that withholds name. The caller gets it when it confirms.
    protocol_no: str


class Bindings:
    """All bindings, in memory. Safe to use from many threads."""

    def __init__(self, *, verification_code: str, max_bindings: int) -> None:
        self._verification_code = verification_code
        self._max_bindings = max_bindings
        self._offered: dict[str, Binding] = {}
        self._confirmed: dict[str, Binding] = {}
        self._lock = threading.Lock()

    def offer(self, *, ua: str, bank_card_number: str, pay_type: str) -> Binding:
        """Begin a binding. /admin/bindings shows its verification code. Raises BookFull."""
        binding = Binding(
            ua=ua,
            bank_card_number=bank_card_number,
            pay_type=pay_type,
            unique_code=secrets.token_hex(16),
            verification_code=self._verification_code or f"{secrets.randbelow(10**6):06d}",
            protocol_no=f"XY{secrets.token_hex(12)}",
        )
        with self._lock:
            if len(self._offered) >= self._max_bindings:
                raise BookFull
            self._offered[binding.unique_code] = binding
        return binding

    def confirm(
        self, *, ua: str, unique_code: str, verification_code: str, bank_card_number: str, pay_type: str
    ) -> Binding:
        """Confirm a binding. Repeating it gives the same one. Raises BindingRefused."""
        with self._lock:
            binding = self._offered.get(unique_code)
            if binding is None or binding.ua != ua:
                raise BindingRefused("签约唯一码不存在")
            if binding.verification_code != verification_code:
                raise BindingRefused("验证码错误")
            if (binding.bank_card_number, binding.pay_type) != (bank_card_number, pay_type):
                raise BindingRefused("银行卡号或支付类型与预签约不一致")
            self._confirmed[binding.protocol_no] = binding
            return binding

    def find(self, ua: str, protocol_no: str) -> Binding | None:
        """The confirmed binding of this `ua` with that number; None if there is none."""
        with self._lock:
            binding = self._confirmed.get(protocol_no)
        return binding if binding and binding.ua == ua else None

    def offered(self) -> list[Binding]:
        """All bindings, confirmed or not, oldest first."""
        with self._lock:
            return list(self._offered.values())
