"""Sends callbacks when they are due, and again until they are acknowledged."""

import heapq
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import urllib3

from service.sandbox.letter import Penman
from service.sandbox.orders import OrderBook, SandboxOrder
from service.sandbox.plan import Address, PlannedCallback, Sender
from service.sandbox.settings import SandboxSettings
from service.sandbox.tally import Reply, Tally


@dataclass(order=True, slots=True)
class _Parcel:
    """One callback on its way; sorts by when it is due."""

    due: float
    number: int
    callback: PlannedCallback = field(compare=False)
    failures: int = field(compare=False, default=0)
    acknowledged: bool = field(compare=False, default=False)


class Courier:
    """A few threads that take due callbacks from one heap. Its threads start with `start`."""

    def __init__(self, *, settings: SandboxSettings, penman: Penman, book: OrderBook, tally: Tally) -> None:
        self._settings = settings
        self._penman = penman
        self._book = book
        self._tally = tally
        self._heap: list[_Parcel] = []
        self._numbers = count()
        self._under_way = 0
        self._closed = False
        self._wake = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._http = urllib3.PoolManager(
            maxsize=settings.senders,
            retries=False,
            timeout=urllib3.Timeout(total=settings.timing.callback_timeout_seconds),
        )

    def start(self) -> None:
        """Begin to send."""
        for number in range(self._settings.senders):
            thread = threading.Thread(target=self._work, name=f"courier-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def schedule(self, callbacks: Sequence[PlannedCallback]) -> None:
        """Send each at its time, counted from now."""
        now = time.monotonic()
        with self._wake:
            for callback in callbacks:
                heapq.heappush(self._heap, _Parcel(now + callback.delay_seconds, next(self._numbers), callback))
            self._wake.notify_all()

    def outstanding(self) -> int:
        """How many callbacks are still to be sent or under way, repetitions not yet scheduled apart."""
        with self._wake:
            return len(self._heap) + self._under_way

    def close(self) -> None:
        """Stop sending; what is under way ends within its time limit. Safe to call twice."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()
        self._http.clear()

    def _work(self) -> None:
        while (parcel := self._take()) is not None:
            reply = self._send(parcel.callback)
            self._tally.record_reply(parcel.callback, reply, duplicate=parcel.acknowledged)
            self._put_back(self._next(parcel, reply))

    def _take(self) -> _Parcel | None:
        with self._wake:
            while not self._closed:
                wait_seconds = self._heap[0].due - time.monotonic() if self._heap else None
                if wait_seconds is not None and wait_seconds <= 0:
                    self._under_way += 1
                    return heapq.heappop(self._heap)
                self._wake.wait(wait_seconds)
            return None

    def _put_back(self, parcel: _Parcel | None) -> None:
        # In one step, so that `outstanding` never looks as if all were done.
        with self._wake:
            self._under_way -= 1
            if parcel is not None:
                heapq.heappush(self._heap, parcel)
                self._wake.notify()

    def _next(self, parcel: _Parcel, reply: Reply) -> _Parcel | None:
        callback = parcel.callback
        if callback.sender is Sender.FORGER:
            return None
        if reply is Reply.ACKNOWLEDGED or parcel.acknowledged:
            if callback.repeats == 0:
                return None
            again = replace(callback, repeats=callback.repeats - 1)
            soon = random.Random(f"{self._settings.seed}/{callback.order.biz_order_no}/{callback.repeats}")  # noqa: S311
            return self._parcel(soon.uniform(0.0, 0.5), again, acknowledged=True)
        waits = self._settings.timing.repeat_after_seconds
        if parcel.failures >= len(waits):
            self._tally.record_given_up()
            return None
        return self._parcel(waits[parcel.failures], callback, failures=parcel.failures + 1)

    def _parcel(
        self, wait_seconds: float, callback: PlannedCallback, *, failures: int = 0, acknowledged: bool = False
    ) -> _Parcel:
        return _Parcel(time.monotonic() + wait_seconds, next(self._numbers), callback, failures, acknowledged)

    def _send(self, callback: PlannedCallback) -> Reply:
        letter = self._penman.write(callback, stranger=self._stranger(callback))
        try:
            response = self._http.request(
                "POST",
                letter.url,
                body=letter.body,
                headers={"Content-Type": letter.content_type, "User-Agent": "payment-callbacks-sandbox"},
                redirect=False,
            )
        except urllib3.exceptions.HTTPError:
            return Reply.UNANSWERED
        expected = self._settings.acknowledgement.body.encode()
        return Reply.ACKNOWLEDGED if response.status == 200 and response.data.strip() == expected else Reply.REFUSED

    def _stranger(self, callback: PlannedCallback) -> SandboxOrder | None:
        if callback.address is not Address.OTHER_TOKEN:
            return None
        return self._book.neighbour(callback.order)
