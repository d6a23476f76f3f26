"""Journals: a line of JSON for each thing that happened, on disk before it counts."""

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path


class Journal:
    """Appends to a file. Safe to use from many threads."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        self._lock = threading.Lock()

    def write(self, entry: Mapping[str, object]) -> None:
        """Return once the entry is on disk (fsync)."""
        line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
