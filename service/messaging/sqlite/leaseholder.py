"""Who took a lease, and whether that one still lives: what the processes of one machine can know of each other."""

import os
import secrets
import threading
from pathlib import Path

from service.messaging.errors import QueueFileFailed
from service.runtime.byte_locks import is_byte_free, lock_byte

#: Offsets to choose from: no two holders ever choose the same.
_OFFSETS = 2**62


class Leaseholder:
    """One that takes leases, with a name of its own in each of them.

    It keeps one byte of `lock_file` locked, chosen at random, until it is closed or its process ends, however that
    ends. The kernel frees the byte then, and every other holder can see that nobody works on what was leased in that
    name. The lock belongs to the open file and not to the process, so it tells apart the holders of one process, too;
    neither process ids, with their namespaces, nor clocks have a say. A file that was deleted and made anew says
    nothing of the holders of the old one.

    Where the system has no such locks, nobody is ever known to be gone: leases run out.
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
