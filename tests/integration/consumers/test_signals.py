"""Signals to a real process."""

import signal
import sys
import time

import pytest

from tests.support.processes import Processes

# The main thread waits without an end, and the signal comes to another thread: nothing wakes the main thread.
_WAITING_PROGRAM = """
import signal, sys, threading, time
from consumers.signals import stop_on_signals
from service.runtime.logs import configure_logs

configure_logs(stream=sys.stdout, human=False)
stop = threading.Event()
stop_on_signals(stop)
other = threading.Thread(target=lambda: time.sleep(60), daemon=True)
other.start()
threading.Timer(0.2, lambda: signal.pthread_kill(other.ident, int(sys.argv[1]))).start()
stop.wait()
print("left in good order", flush=True)
"""

# The main thread uses the event all the time, which is when a handler that sets it by itself would block for ever.
_PROGRAM = """
import sys, threading
from consumers.signals import stop_on_signals
from service.runtime.logs import configure_logs

configure_logs(stream=sys.stdout, human=False)
stop = threading.Event()
stop_on_signals(stop)
print("ready", flush=True)
while not stop.wait(0.0001):
    pass
print("left in good order", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_asks_for_an_orderly_end(processes: Processes, number: signal.Signals) -> None:
    process = processes.start_command(sys.executable, "-c", _PROGRAM)
    process.wait_until(lambda: "ready" in process.output)
    process.signal(number)
    assert process.wait() == 0
    assert "left in good order" in process.output
    assert number.name in process.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_another_thread_takes_ends_a_main_thread_that_waits(
    processes: Processes, number: signal.Signals
) -> None:
    process = processes.start_command(sys.executable, "-c", _WAITING_PROGRAM, str(int(number)))
    assert process.wait() == 0
    assert "left in good order" in process.output
    assert number.name in process.output


def test_a_process_that_is_sent_signals_until_it_has_gone_ends_in_good_order(processes: Processes) -> None:
    process = processes.start_command(sys.executable, "-c", _PROGRAM)
    process.wait_until(lambda: "ready" in process.output)
    while process.running:
        process.signal(signal.SIGTERM)
        time.sleep(0.0005)
    assert process.wait() == 0
    assert "left in good order" in process.output
    assert "Traceback" not in process.output
