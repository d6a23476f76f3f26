"""Journals: a line of JSON for each thing that happened, written before it counts."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path


class Journal:
    """Appends to a file. Safe to use from many threads."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b")
        self._file.seek(0)
        self._file.truncate(self._file.read().rfind(b"\n") + 1)  # a kill may have cut the last line off
        self._lock = threading.Lock()

    def write(self, entry: Mapping[str, object]) -> None:
        """Return once the kernel has the entry, so that a kill cannot take it back."""
        line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
