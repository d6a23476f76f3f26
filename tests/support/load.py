"""Steady traffic of a gateway, for what happens in the midst of it."""

import random
import threading
from collections.abc import Callable, Sequence
from itertools import count
from types import TracebackType
from typing import Self

from tests.support.gateway_sender import Answer, Callback, GatewaySender
from tests.support.waiting import eventually


class Load:
    """Order after order, each a pending and a success, one of them repeated, in any order, until it is left.

    A few threads send, with a short pause after each order, so that the machine is busy and not drowned.
    """

    def __init__(
        self,
        *,
        sender: GatewaySender,
        make_callback: Callable[..., Callback],
        prefix: str,
        threads: int = 4,
        pause_seconds: float = 0.05,
    ) -> None:
        """`make_callback` takes an order number and a `pay_status`; order numbers begin with `prefix`."""
        self._sender = sender
        self._make_callback = make_callback
        self._prefix = prefix
        self._pause_seconds = pause_seconds
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._answers: list[Answer] = []
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(threads)]

    @property
    def answers(self) -> Sequence[Answer]:
        """Everything sent so far, as it was answered."""
        with self._lock:
            return list(self._answers)

    @property
    def acknowledged(self) -> Sequence[Callback]:
        """What the gateway need not repeat any more, as often as it was acknowledged."""
        return [answer.callback for answer in self.answers if answer.acknowledged]

    def wait_for_answers(self, count: int) -> Sequence[Answer]:
        """Wait until `count` more are answered, in whatever way, and return what has been answered since the call."""
        before = len(self.answers)
        eventually(lambda: len(self.answers) >= before + count)
        return self.answers[before:]

    def wait_for_acknowledgements(self, count: int) -> None:
        """Wait until `count` more are acknowledged."""
        before = len(self.acknowledged)
        eventually(lambda: len(self.acknowledged) >= before + count)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        shuffle = random.Random(number).shuffle
        for order in count(1):
            biz_order_no = f"{self._prefix}-{number}-{order}"
            statuses = ["pending", "success", "success" if order % 2 else "pending"]
            shuffle(statuses)
            for status in statuses:
                answer = self._sender.send(self._make_callback(biz_order_no, pay_status=status))
                with self._lock:
                    self._answers.append(answer)
            if self._stop.wait(self._pause_seconds):
                return
