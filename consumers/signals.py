"""Signals: how a consumer's process is asked to end."""

import queue
import signal
import threading

import structlog

_log = structlog.get_logger()


def stop_on_signals(stop: threading.Event) -> None:
    """From now on SIGTERM and SIGINT set `stop`. Call it once, in the main thread.

    A handler runs between any two steps of the main thread, which may hold the event's own lock just then: setting it
    there can block for ever. So the handler only hands the signal over, by the one queue that is made for it.
    """
    received: queue.SimpleQueue[int] = queue.SimpleQueue()

    def wait_for_signal() -> None:
        number = received.get()
        _log.info("stopping", signal=signal.Signals(number).name)
        stop.set()

    threading.Thread(target=wait_for_signal, name="signals", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: received.put(number))
