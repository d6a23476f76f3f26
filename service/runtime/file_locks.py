"""File locks that belong to the open file and not to the process (`F_OFD_SETLK`, Linux).

They tell apart the holders within one process, and closing another descriptor of the file releases none of them. The
kernel releases them when the file is closed, however its process ends.
"""

import fcntl
import os
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: struct flock: type, whence, start, length, process id.
_FLOCK = "hhqqi"
# Two bytes of the file: the place of the next holder, and the lock itself.
_NEXT, _LOCK = 0, 1
_RETRY_SECONDS = 0.001


class LockTimeout(Exception):
    """Others held the lock for as long as the caller would wait."""


@contextmanager
def hold_file_lock(file: Path, *, wait_seconds: float) -> Iterator[None]:
    """Run the `with` block while no other thread or process of this machine runs one for the same `file`.

    It guards writes to a SQLite file, because SQLite's own wait for its write lock is not fair: a waiting process
    retries ever more rarely, down to every 100 ms, and one that has just released the lock takes it again within
    microseconds. A process that writes all the time would keep the others out for seconds. Here a waiting process
    retries every millisecond, and the next holder is chosen while the lock is still held, so the holder cannot also be
    the next one.

    `file` is created where it is missing, and stays. Raises LockTimeout, and OSError where `file` cannot be used. Where
    the system has no such locks, nobody waits.
    """
    # The lock belongs to this open file, so threads exclude each other, too; closing the file releases it.
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + wait_seconds
        for offset in (_NEXT, _LOCK):
            while lock_byte(descriptor, offset) is False:
                if time.monotonic() >= deadline:
                    raise LockTimeout(f"{file}: others have written for {wait_seconds} s")
                time.sleep(_RETRY_SECONDS)
        if sys.platform == "linux":
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_UNLCK, os.SEEK_SET, _NEXT, 1, 0))
        yield
    finally:
        os.close(descriptor)


def lock_byte(descriptor: int, offset: int) -> bool | None:
    """Lock one byte; says whether that worked: False where another open file has it, None without such locks."""
    if sys.platform != "linux":
        return None
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def is_byte_free(descriptor: int, offset: int) -> bool:
    """Whether no other open file has locked the byte; False where the system cannot tell."""
    if sys.platform != "linux":
        return False
    query = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
    kind, *_ = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, query))
    return bool(kind == fcntl.F_UNLCK)
