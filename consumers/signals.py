"""Signals: how a process is asked to end."""

import queue
import signal
import sys
import threading

import structlog

_log = structlog.get_logger()

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def stop_on_signals(stop: threading.Event) -> None:
    """From now on SIGTERM, SIGINT and SIGHUP set `stop`. Call it once, in the main thread.

    A SIGHUP that is ignored, as under `nohup`, stays ignored.

    A handler runs between any two steps of the main thread, which may hold the event's own lock just then: setting it
    there can block for ever. So the handler only hands the signal over, by the one queue that is made for it.
    """
    received: queue.SimpleQueue[int] = queue.SimpleQueue()

    def wait_for_signal() -> None:
        number = received.get()
        _log.info("stopping", signal=signal.Signals(number).name)
        stop.set()

    threading.Thread(target=wait_for_signal, name="signals", daemon=True).start()
    for number in _heeded():
        signal.signal(number, lambda number, _frame: received.put(number))


def end_on_signals() -> None:
    """From now on SIGTERM, SIGINT and SIGHUP end the process at once (SystemExit, 0). Call it in the main thread.

    For a server's master until gunicorn has handlers of its own: nothing is in hand yet, and what only puts a signal
    down would be replaced without anybody having looked. A container's first process does not even end by default.
    """
    for number in _heeded():
        signal.signal(number, lambda _number, _frame: sys.exit(0))


def _heeded() -> list[signal.Signals]:
    ignores_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in _ENDING if not (number is signal.SIGHUP and ignores_hangup)]
