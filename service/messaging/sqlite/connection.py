"""A connection to a SQLite file that notices when that file is taken away."""

import os
import sqlite3
from pathlib import Path


class FileConnection(sqlite3.Connection):
    """Knows which file it has opened.

    When that is deleted or replaced, SQLite in WAL mode goes on in the one that nobody will ever find again, and calls
    every commit a success.
    """

    path: Path
    _opened: os.stat_result

    def remember_file(self, path: Path) -> None:
        """Take `path`, which this connection has used already, for its file."""
        self.path = path
        self._opened = os.stat(path)

    def require_file(self) -> None:
        """Raise OSError unless its file is still where it was."""
        if not os.path.samestat(os.stat(self.path), self._opened):
            raise FileNotFoundError("the file was replaced while it was in use")
