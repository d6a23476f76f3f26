"""Whether a worker lives, and whether requests had better be sent to another."""

import threading
from collections.abc import Callable
from concurrent.futures import Future

import structlog
from flask import Response

from service.ledger.errors import LedgerUnavailable

#: How long the database may take to say that it is there; a probe waits longer than that.
ANSWER_WITHIN_SECONDS = 2.0

_UNAVAILABLE = 503

_log = structlog.get_logger(__name__)


class Drain:
    """Whether the worker process is about to end. Made before fork; each worker has its own copy from then on."""

    def __init__(self) -> None:
        self.begun = False

    def begin(self) -> None:
        """From now on, send nobody here. Safe to call from a signal handler, and twice."""
        self.begun = True


class Health:
    """The state of one worker process, for `/healthz` and `/readyz`. Safe to ask from many threads at once."""

    def __init__(
        self,
        *,
        drain: Drain,
        schema_serves: Callable[[], bool],
        answer_within_seconds: float = ANSWER_WITHIN_SECONDS,
    ) -> None:
        """`schema_serves` asks the database whether this release can work on it. Raises LedgerUnavailable."""
        self._drain = drain
        self._schema_serves = schema_serves
        self._answer_within_seconds = answer_within_seconds
        self._lock = threading.Lock()
        self._asked: Future[str] | None = None

    def alive(self) -> Response:
        """Alive, as long as it can say so: to restart a process brings no database back."""
        return _plain("alive")

    def ready(self) -> Response:
        """Ready, or why not. Answers within `answer_within_seconds`, whatever the database does."""
        trouble = "draining" if self._drain.begun else self._trouble_of_the_ledger()
        return _plain(trouble, _UNAVAILABLE) if trouble else _plain("ready")

    def _trouble_of_the_ledger(self) -> str:
        try:
            return self._ask().result(timeout=self._answer_within_seconds)
        except TimeoutError:
            return "the ledger does not answer in time"

    def _ask(self) -> "Future[str]":
        """The question that is under way, or a new one: a database that hangs takes one connection, not one a probe."""
        with self._lock:
            if self._asked is None or self._asked.done():
                self._asked = Future()
                # A daemon: no worker stays for the answer when it ends.
                threading.Thread(target=self._answer, args=(self._asked,), name="readiness", daemon=True).start()
            return self._asked

    def _answer(self, asked: "Future[str]") -> None:
        trouble = "the ledger cannot be used"
        try:
            trouble = "" if self._schema_serves() else "the ledger lacks this release's schema"
        except LedgerUnavailable as error:
            _log.warning("api_not_ready", reason=str(error))
        finally:
            asked.set_result(trouble)


def _plain(text: str, status: int = 200) -> Response:
    return Response(text, status, content_type="text/plain")
