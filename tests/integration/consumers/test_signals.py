"""Signals to a real process."""

import signal
import sys

import pytest

from tests.support.processes import Processes

# The main thread uses the event all the time, which is when a handler that sets it by itself would block for ever.
_PROGRAM = """
import threading
from consumers.signals import stop_on_signals

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
