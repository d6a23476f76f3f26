"""The gateway's side: sends the planned callbacks, each until it is acknowledged, and keeps a journal of answers."""

import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.chaos.journal import Journal
from tests.chaos.plan import Sending
from tests.support.callbacks import GatewaySender
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

_THREADS = 16
# As a gateway would: it does not wait for ever.
_ANSWER_SECONDS = 5.0


class Sender:
    """Sends in the planned order, some callbacks at once, while the `with` lasts; no further than `allow` says."""

    def __init__(self, *, url: str, sendings: Sequence[Sending], journal: Path, per_second: float) -> None:
        """`per_second` is how many sendings begin in a second, at most; repeats after a failure are not counted."""
        self._gateway = GatewaySender(url=url, timeout_seconds=_ANSWER_SECONDS)
        self._sendings = sendings
        self._journal = Journal(journal)
        self._per_second = per_second
        self._next_at = 0.0
        self._begun = self._allowed = self._ended = 0
        self._changed = threading.Condition()
        self._stopped = False
        self._errors: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(_THREADS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        if kind is None:
            self._journal.write({"end": True})
        self._journal.close()
        self._gateway.close()

    @property
    def ended(self) -> int:
        """How many sendings have been answered as they have to be."""
        with self._changed:
            assert not self._errors, self._errors
            return self._ended

    def allow(self, count: int) -> None:
        """Let the first `count` sendings begin."""
        with self._changed:
            self._allowed = max(self._allowed, min(count, len(self._sendings)))
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        """Wait until `count` sendings have ended. Fails where none ends for long."""
        while (before := self.ended) < min(count, len(self._sendings)):
            eventually(lambda: self.ended > before)

    def _run(self, number: int) -> None:
        pause = random.Random(number)
        try:
            while (sending := self._take()) is not None:
                self._send(sending, pause)
                with self._changed:
                    self._ended += 1
        except Exception as error:  # noqa: BLE001 - whoever waits is told
            with self._changed:
                self._errors.append(repr(error))

    def _take(self) -> Sending | None:
        with self._changed:
            while self._begun >= self._allowed and not self._stopped:
                self._changed.wait()
            if self._stopped:
                return None
            sending = self._sendings[self._begun]
            self._begun += 1
            now = time.monotonic()
            self._next_at = max(now, self._next_at + 1 / self._per_second)
            wait_seconds = self._next_at - now
        time.sleep(wait_seconds)
        return sending

    def _send(self, sending: Sending, pause: random.Random) -> None:
        gives_up_at = time.monotonic() + HANGS_AFTER_SECONDS
        while True:
            at = time.time()
            answer = self._gateway.send(sending.callback)
            self._journal.write(
                {
                    "at": at,
                    "seconds": answer.seconds,
                    "path": sending.callback.path,
                    "body": sending.callback.body.decode(),
                    "status": answer.status,
                    "answer": answer.body.decode(errors="replace"),
                }
            )
            # A failure of the queue (503) says nothing about a false callback: it is sent until it is judged.
            if answer.acknowledged or (not sending.is_true and answer.status not in (0, 503)):
                return
            assert not self._stopped, f"stopped before it was acknowledged: {answer}"
            assert time.monotonic() < gives_up_at, f"never acknowledged: {answer}"
            time.sleep(pause.uniform(0.05, 0.4))
