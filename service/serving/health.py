"""Liveness and readiness of one worker process."""

import threading
from collections.abc import Callable
from concurrent.futures import Future

from flask import Response

#: How long the database may take to answer; a probe waits longer than that.
ANSWER_WITHIN_SECONDS = 2.0

_UNAVAILABLE = 503


class Drain:
    """Whether the worker process is about to end. Made before fork; each worker has its own copy from then on."""

    def __init__(self) -> None:
        self.begun = False

    def begin(self) -> None:
        """The worker is not ready from now on. Safe to call from a signal handler, and twice."""
        self.begun = True


class Health:
    """Answers `/healthz` and `/readyz`. Safe to share between threads."""

    def __init__(
        self,
        *,
        drain: Drain,
        find_trouble: Callable[[], str],
        answer_within_seconds: float = ANSWER_WITHIN_SECONDS,
    ) -> None:
        """`find_trouble` asks the database, and returns why it cannot be used; "" where it can."""
        self._drain = drain
        self._find_trouble = find_trouble
        self._answer_within_seconds = answer_within_seconds
        self._lock = threading.Lock()
        self._check: Future[str] | None = None

    def alive(self) -> Response:
        """Alive, without asking the database: restarting a process does not repair a database."""
        return _plain("alive")

    def ready(self) -> Response:
        """Ready, or the reason why not. Answers within `answer_within_seconds`, even if the database hangs."""
        reason = "draining" if self._drain.begun else self._check_ledger()
        return _plain(reason, _UNAVAILABLE) if reason else _plain("ready")

    def _check_ledger(self) -> str:
        try:
            return self._start_check().result(timeout=self._answer_within_seconds)
        except TimeoutError:
            return "the ledger does not answer in time"

    def _start_check(self) -> "Future[str]":
        """The check that is under way, or a new one: a hanging database costs one connection, not one per probe."""
        with self._lock:
            if self._check is None or self._check.done():
                self._check = Future()
                # A daemon: a worker that ends does not wait for the answer.
                threading.Thread(target=self._run_check, args=(self._check,), name="readiness", daemon=True).start()
            return self._check

    def _run_check(self, check: "Future[str]") -> None:
        reason = "the ledger cannot be used"
        try:
            reason = self._find_trouble()
        finally:
            check.set_result(reason)


def _plain(text: str, status: int = 200) -> Response:
    return Response(text, status, content_type="text/plain")
