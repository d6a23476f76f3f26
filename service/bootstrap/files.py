"""Where the embedded stores keep their files."""

from pathlib import Path

from service.config.settings import Settings


def find_data_file(settings: Settings, name: str) -> Path:
    """A file in the data directory, which is made for its owner alone: it holds people's data."""
    settings.data_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return settings.data_directory / name
