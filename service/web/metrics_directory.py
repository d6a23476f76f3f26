"""The folder in which the processes of one receiver keep their counters."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "payment-callbacks-metrics-"
_LOCK = "in-use"


class MetricsDirectory:
    """A new, empty folder below `parent`.

    Folders that a killed receiver left there are removed first. A folder is in use as long as its maker or a fork of it
    lives: the kernel holds its lock for so long, across containers too, where process ids mean nothing.
    """

    def __init__(self, *, parent: Path) -> None:
        _remove_left_behind(parent)
        self.path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))
        self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def remove(self) -> None:
        """Delete it. Safe to call twice."""
        shutil.rmtree(self.path, ignore_errors=True)


def _remove_left_behind(parent: Path) -> None:
    for lock_file in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        try:
            lock = os.open(lock_file, os.O_RDWR)
        except OSError:
            continue  # another user's, or gone already
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # in use
        else:
            shutil.rmtree(lock_file.parent, ignore_errors=True)
        finally:
            os.close(lock)
