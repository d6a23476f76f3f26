"""Imported by every Python process that a test starts: it writes where its threads stand when it is asked by a signal.

Its own file, since stderr may be what nobody reads, and a signal that no server uses: gunicorn takes SIGABRT.
"""

import faulthandler
import os
import signal


def write_stacks_when_asked() -> None:
    """From now on, write them to the file that THREAD_STACKS names."""
    file = os.open(os.environ["THREAD_STACKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    faulthandler.register(signal.SIGRTMIN + 7, file=file, all_threads=True)


write_stacks_when_asked()
