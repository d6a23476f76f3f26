"""Who took a lease, and whether that holder is still there, for the processes of one machine."""

import os
import secrets
import threading
from pathlib import Path

from service.messaging.errors import QueueFileFailed
from service.runtime.file_locks import is_byte_free, lock_byte

#: Offsets to choose from: so many that no two holders choose the same.
_OFFSETS = 2**62


class Leaseholder:
    """One holder of leases, whose name is part of each lease's name.

    It keeps one randomly chosen byte of `lock_file` locked until it is closed or its process ends, however that ends.
    The kernel then releases the byte, and every other holder can see that nobody works on those leases any more. The
    lock belongs to the open file, so it also tells apart the holders within one process. It depends neither on process
    ids, which differ between namespaces, nor on clocks. A lock file that was deleted and created anew says nothing
    about the holders of the old one.

    Where the system has no such locks, no holder is ever known to be gone, and leases expire by time.
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

    def is_orphaned(self, lease: str) -> bool:
        """Whether the lease's holder is surely gone. Raises `QueueFileFailed` where the lock file cannot be used."""
        holder = lease.partition("/")[0]
        inode, _, offset = holder.partition("-")
        with self._using:
            descriptor = self._open()
            if holder == self._name or inode != str(self._inode) or not offset.isdecimal():
                return False
            return is_byte_free(descriptor, int(offset))

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
            self._inode = os.fstat(self._descriptor).st_ino if lock_byte(self._descriptor, offset) else -1
            self._name = f"{self._inode}-{offset}"
        return self._descriptor
