"""The orders that the sandbox has accepted: its truth."""

import threading
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count

from service.sandbox.script import Pace, PayStatus, Script
from service.sandbox.settings import Timing

_FAILURE = "余额不足"


class OrderTaken(Exception):
    """There is an order with this number already."""


class BookFull(Exception):
    """As many entries are kept as the settings allow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOrder:
    """One accepted withhold."""

    ua: str
    biz_order_no: str
    pay_order_no: str
    pay_type: str
    amount: str
    #: "" where none was given: then there are no callbacks.
    notify_url: str
    script: Script
    #: Aware.
    accepted_at: datetime
    #: When it becomes terminal, aware; None for never.
    settles_at: datetime | None

    def status_at(self, now: datetime) -> PayStatus:
        """What is true of it at `now`."""
        if self.settles_at is not None and now >= self.settles_at:
            return self.script.ending
        return self.script.waiting

    def channel_response(self, status: PayStatus) -> str:
        """The payment channel's words where it failed; "" otherwise."""
        return _FAILURE if status is PayStatus.FAIL else ""


class OrderBook:
    """All orders, in memory. Safe to use from many threads."""

    def __init__(self, *, timing: Timing, max_orders: int) -> None:
        self._timing = timing
        self._max_orders = max_orders
        self._orders: dict[tuple[str, str], SandboxOrder] = {}
        #: Per ua the last two orders that have an address.
        self._addressed: dict[str, deque[SandboxOrder]] = {}
        self._numbers = count(1)
        self._lock = threading.Lock()

    def accept(
        self, *, ua: str, biz_order_no: str, pay_type: str, amount: str, notify_url: str, script: Script, now: datetime
    ) -> SandboxOrder:
        """Make the order, numbered. Raises OrderTaken for a number that is there, whatever the rest, and BookFull."""
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
        """The order of that number, where this `ua` has one."""
        with self._lock:
            return self._orders.get((ua, biz_order_no))

    def neighbour(self, order: SandboxOrder) -> SandboxOrder | None:
        """Another order of the same `ua` that has a notify_url; None where there is no such."""
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
        match script.pace:
            case Pace.STUCK:
                return None
            case Pace.INSTANT:
                return now
            case Pace.SLOW:
                return now + timedelta(seconds=self._timing.slow_settle_seconds)
            case Pace.NORMAL:
                return now + timedelta(seconds=self._timing.settle_seconds)
