"""Signals: how a process is asked to end."""

import os
import signal
import sys
import threading

import structlog

_log = structlog.get_logger()

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def stop_on_signals(stop: threading.Event) -> None:
    """From now on SIGTERM, SIGINT and SIGHUP set `stop`. Call it once, in the main thread.

    A SIGHUP that is ignored, as under `nohup`, stays ignored.

    A handler in Python runs in the main thread alone, between two steps of it. Where that thread is just about to wait,
    or another thread has taken the signal, the handler would run only after the wait, which may have no end. Python's
    own handler in C writes each signal's number into a pipe at once, in whatever thread it runs; the pipe is read here.
    """
    heeded = _heeded()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def wait_for_signal() -> None:
        while (number := os.read(reader, 1)[0]) not in heeded:
            pass
        _log.info("stopping", signal=signal.Signals(number).name)
        stop.set()

    threading.Thread(target=wait_for_signal, name="signals", daemon=True).start()
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in heeded:
        signal.signal(number, lambda _number, _frame: None)


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
