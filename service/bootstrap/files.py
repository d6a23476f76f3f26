"""The files of the embedded queue, ledger and spool."""

from pathlib import Path

from service.config.settings import Settings


def find_data_file(settings: Settings, name: str) -> Path:
    """The path of a file in the data directory. The directory is made private, for it holds personal data."""
    settings.data_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return settings.data_directory / name
