"""Locks on single bytes of a file, which belong to the open file and not to the process (`F_OFD_SETLK`, Linux).

So they tell apart the holders of one process, too, and closing another descriptor of the file drops none of them. The
kernel frees them when the file is closed, however its process ends.
"""

import fcntl
import os
import struct
import sys

#: struct flock: type, whence, start, length, process id.
_FLOCK = "hhqqi"


def lock_byte(descriptor: int, offset: int) -> bool | None:
    """Whether it is ours now; False where another open file has it, None where the system has no such locks."""
    if sys.platform != "linux":
        return None
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def unlock_byte(descriptor: int, offset: int) -> None:
    """Let others have it. Harmless where it was not locked."""
    if sys.platform == "linux":
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_UNLCK, os.SEEK_SET, offset, 1, 0))


def is_byte_free(descriptor: int, offset: int) -> bool:
    """Whether no other open file has locked it; False where the system cannot tell."""
    if sys.platform != "linux":
        return False
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
    kind, *_ = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked))
    return bool(kind == fcntl.F_UNLCK)
