"""The files of the embedded queue, ledger and spool."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.config.settings import Settings


class DataDirectoryUnusable(Exception):
    """The data directory cannot be made, or may not be written to. The message says which, why, and what to do."""


def find_data_file(settings: "Settings", name: str) -> Path:
    """The path of a file in the data directory, which is made if it is missing: private, for it holds personal data.

    Raises DataDirectoryUnusable.
    """
    directory = settings.data_directory
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise _unusable(directory, f"cannot be made: {error.strerror}") from error
    # A read-only disk is left to who writes to it: roles wait until it is mended.
    if not os.access(directory, os.W_OK | os.X_OK) and not os.statvfs(directory).f_flag & os.ST_RDONLY:
        raise _unusable(directory, "may not be written to")
    return directory / name


def _unusable(directory: Path, why: str) -> DataDirectoryUnusable:
    return DataDirectoryUnusable(
        f"data_directory {directory.absolute()} {why}. Make it a folder that user {os.geteuid()} may write to, or name"
        " another one in the settings."
    )
