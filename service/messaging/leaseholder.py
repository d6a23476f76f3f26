"""Who took a lease, and whether that one still lives: what the processes of one machine can know of each other."""

import fcntl
import os
import secrets
import struct
import sys
import threading
from pathlib import Path

from service.messaging.errors import QueueFileFailed

#: struct flock: type, whence, start, length, process id.
_FLOCK = "hhqqi"
#: Offsets to choose from: no two holders ever choose the same.
_OFFSETS = 2**62


class Leaseholder:
    """One that takes leases, with a name of its own in each of them.

    It keeps one byte of `lock_file` locked, chosen at random, until it is closed or its process ends, however that
    ends. The kernel frees the byte then, and every other holder can see that nobody works on what was leased in that
    name. The lock belongs to the open file and not to the process, so it tells apart the holders of one process, too;
    neither process ids, with their namespaces, nor clocks have a say. A file that was deleted and made anew says
    nothing of the holders of the old one.

    Where the system has no such locks (`F_OFD_SETLK`, Linux), nobody is ever known to be gone: leases run out.
    """

    def __init__(self, lock_file: Path) -> None:
        self._lock_file = lock_file
        # Guards what follows, and keeps the descriptor open while it is used: its number may soon be another file's.
        self._using = threading.Lock()
        self._descriptor: int | None = None
        self._inode = 0
        self._name = ""
        self._closed = False

    def name_lease(self) -> str:
        """The name of a new lease. Raises `QueueFileFailed` where the lock file cannot be used."""
        with self._using:
            self._open()
            return f"{self._name}/{secrets.token_hex(8)}"

    def outlives(self, lease: str) -> bool:
        """Whether who took the lease is surely gone. Raises `QueueFileFailed` where the lock file cannot be used."""
        holder = lease.partition("/")[0]
        inode, _, offset = holder.partition("-")
        with self._using:
            descriptor = self._open()
            if holder == self._name or inode != str(self._inode) or not offset.isdecimal():
                return False
            return _is_free(descriptor, int(offset))

    def close(self) -> None:
        """Leave what is still leased in this name to others. Safe to call twice."""
        with self._using:
            self._closed = True
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def _open(self) -> int:
        if self._closed:
            raise QueueFileFailed(f"{self._lock_file} is closed")
        if self._descriptor is None:
            try:
                self._lock_file.parent.mkdir(parents=True, exist_ok=True)
                self._descriptor = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise QueueFileFailed(f"{self._lock_file}: {error}") from error
            offset = secrets.randbelow(_OFFSETS)
            self._inode = os.fstat(self._descriptor).st_ino if _lock(self._descriptor, offset) else -1
            self._name = f"{self._inode}-{offset}"
        return self._descriptor


def _lock(descriptor: int, offset: int) -> bool:
    """Lock the byte for as long as the file is open; False where the system cannot."""
    if sys.platform != "linux":
        return False
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0))
    except OSError:
        return False
    return True


def _is_free(descriptor: int, offset: int) -> bool:
    """Whether no other open file has locked the byte."""
    if sys.platform != "linux":
        return False
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
    kind, *_ = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked))
    return bool(kind == fcntl.F_UNLCK)
