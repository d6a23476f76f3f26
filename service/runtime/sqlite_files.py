"""SQLite files: what to look at before SQLite opens one on a disk that fails."""

import os
import sys
from contextlib import suppress
from pathlib import Path


def is_read_only(file: Path) -> bool:
    """Whether the file exists and cannot be written. Then do not open it.

    SQLite would open it for reading, and as long as that connection lasts, no other one of this process could write,
    even once the disk is writable again.
    """
    return file.exists() and not os.access(file, os.W_OK)


def forget_cached_log(file: Path) -> None:
    """Have the write-ahead log of a database read from the disk from now on.

    Call it before SQLite opens the file, and after a commit has failed, before anybody writes again. When a sync fails,
    Linux keeps the pages in its cache as if they were written (https://lwn.net/Articles/752063). SQLite would recover a
    transaction from there that is not on the disk, and append others to it. Pages that are written a second time may
    not reach the disk either (ext4 of Linux 6.18). Later syncs succeed, and yet a power cut would lose all of it.

    Only the log is opened: closing any descriptor of the database itself would release the process's locks on it.
    """
    if sys.platform != "linux":
        return
    with suppress(OSError):  # mostly there is no log; what else prevents it from being opened, SQLite reports
        log = os.open(f"{file}-wal", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(log, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(log)
