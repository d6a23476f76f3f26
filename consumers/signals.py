"""Signals that ask a process to end."""

import atexit
import os
import signal
import sys
import threading

from service.runtime.logs import Logger

_log = Logger(__name__)

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def stop_on_signals(stop: threading.Event) -> None:
    """From now on SIGTERM, SIGINT and SIGHUP set `stop`. Call it once, in the main thread.

    A SIGHUP that is ignored, as under `nohup`, stays ignored.

    A handler in Python runs only in the main thread, between two bytecodes. Where that thread is about to wait, or
    another thread received the signal, the handler would run only after the wait, which may never end. Python's own
    handler in C writes each signal's number to a pipe at once, in whatever thread it runs; a thread reads that pipe.
    """
    handled = _handled()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def wait_for_signal() -> None:
        while (number := os.read(reader, 1)[0]) not in handled:
            pass
        _log.info("stopping", signal=signal.Signals(number).name)
        stop.set()

    threading.Thread(target=wait_for_signal, name="signals", daemon=True).start()
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in handled:
        signal.signal(number, lambda _number, _frame: None)
    _ignore_at_exit()


def end_on_signals() -> None:
    """From now on SIGTERM, SIGINT and SIGHUP end the process at once (SystemExit, 0). Call it in the main thread.

    This is for a server's master until gunicorn installs its own handlers. It has no work in hand yet, and a signal
    that was only noted would be lost when gunicorn replaces the handler. By default, a container's first process would
    ignore it.
    """
    for number in _handled():
        signal.signal(number, lambda _number, _frame: sys.exit(0))
    _ignore_at_exit()


def _ignore_at_exit() -> None:
    """Ignore further signals once the process is about to exit.

    Python takes its handlers away before the process has gone. A second signal would then kill a process that has done
    all its work, and its exit status would say that it failed. gunicorn's workers inherit this from their master.
    """

    def ignore() -> None:
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)

    atexit.register(ignore)


def _handled() -> list[signal.Signals]:
    ignores_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in _ENDING if not (number is signal.SIGHUP and ignores_hangup)]
