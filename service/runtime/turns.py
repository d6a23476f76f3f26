"""Turns at a SQLite file: who writes all the time keeps nobody out.

SQLite's own wait for its write lock is a lottery: who waits looks ever more rarely, up to every 100 ms, and who has
just let go takes the lock again within microseconds. One process that writes all the time keeps the others out for
seconds. Here who waits looks every millisecond, and the next one is chosen while the turn is still another's, who
therefore cannot be next as well. For every room that writes to such a file: the embedded queue and the embedded ledger.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.runtime.byte_locks import lock_byte, unlock_byte

# Two bytes of the file: to be the next one, and to have the turn.
_NEXT, _TURN = 0, 1
_LOOK_SECONDS = 0.001


class LockTimeout(Exception):
    """Others had their turns for as long as the caller would wait."""


@contextmanager
def hold_file_lock(file: Path, *, wait_seconds: float) -> Iterator[None]:
    """Let one of all threads and processes of this machine at a time do what the `with` holds, each in its turn.

    `file` is made where it is missing, and stays; whoever dies leaves its turn to others. Raises LockTimeout, and
    OSError where `file` cannot be used. Where the system has no `byte_locks`, nobody waits.
    """
    # An open file of one's own is what the lock belongs to, so threads take turns, too; closing it lets go.
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + wait_seconds
        for place in (_NEXT, _TURN):
            while lock_byte(descriptor, place) is False:
                if time.monotonic() >= deadline:
                    raise LockTimeout(f"{file}: others have written for {wait_seconds} s")
                time.sleep(_LOOK_SECONDS)
        unlock_byte(descriptor, _NEXT)
        yield
    finally:
        os.close(descriptor)
