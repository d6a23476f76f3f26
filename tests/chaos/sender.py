"""Sends callbacks and withholds as planned, each until it is answered as it has to be, and keeps a journal of both."""

import json
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import urllib3

from tests.chaos.journal import Journal
from tests.chaos.plan import PAY_TYPES, Sending, Withhold
from tests.support.api import TOKEN
from tests.support.callbacks import GatewaySender
from tests.support.gateway import WITHHOLD
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

_THREADS = 48
# As a gateway would: it does not wait for ever.
_ANSWER_SECONDS = 5.0


class Sender:
    """Sends in the planned order, some callbacks at once, while the `with` lasts; no further than `allow` says."""

    def __init__(
        self,
        *,
        url: str,
        api_url: str,
        sendings: Sequence[Sending | Withhold],
        folder: Path,
        per_second: float,
    ) -> None:
        """`per_second` is how many sendings begin in a second, at most; repeats after a failure are not counted."""
        self._gateway = GatewaySender(url=url, timeout_seconds=_ANSWER_SECONDS)
        self._api = urllib3.PoolManager(
            maxsize=_THREADS, retries=False, timeout=_ANSWER_SECONDS, headers={"Authorization": f"Bearer {TOKEN}"}
        )
        self._withholds_url = f"{api_url}/v1/withholds"
        self._sendings = sendings
        self._sent, self._withheld = Journal(folder / "sent.jsonl"), Journal(folder / "withheld.jsonl")
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
        for journal in (self._sent, self._withheld):
            if kind is None:
                journal.write({"end": True})
            journal.close()
        self._gateway.close()
        self._api.clear()

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

    def _take(self) -> Sending | Withhold | None:
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

    def _send(self, sending: Sending | Withhold, pause: random.Random) -> None:
        gives_up_at = time.monotonic() + HANGS_AFTER_SECONDS
        while not (self._withhold(sending) if isinstance(sending, Withhold) else self._call_back(sending)):
            assert not self._stopped, f"stopped before it was answered as it has to be: {sending}"
            assert time.monotonic() < gives_up_at, f"never answered as it has to be: {sending}"
            time.sleep(pause.uniform(0.05, 0.4))

    def _call_back(self, sending: Sending) -> bool:
        at = time.time()
        answer = self._gateway.send(sending.callback)
        self._sent.write(
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
        return answer.acknowledged or (not sending.is_true and answer.status not in (0, 503))

    def _withhold(self, withhold: Withhold) -> bool:
        """Do as docs/api.md says: send the same request again unless it was accepted, or is being asked about."""
        order = {"merchant": "asked", "biz_order_no": withhold.biz_order_no, "pay_type": PAY_TYPES["asked"]}
        request = {**WITHHOLD, **order}
        del request["biz_data"]
        at = time.time()
        try:
            response = self._api.request("POST", self._withholds_url, json=request)
            status, answer = response.status, json.loads(response.data)
        except urllib3.exceptions.HTTPError:
            status, answer = 0, {}
        self._withheld.write(
            {
                "at": at,
                "seconds": time.time() - at,
                "merchant": "asked",
                "biz_order_no": withhold.biz_order_no,
                "status": status,
                "outcome": answer.get("outcome", ""),
            }
        )
        assert status in (0, 202) or status >= 500, f"{withhold}: the API answered {status}: {answer}"
        return status == 202
