"""What the commands share: the settings they run with, and how they fail."""

import os
from functools import partial
from pathlib import Path

import click

from service.bootstrap.urls import find_unusable_urls
from service.config.reading import SettingsError, load_settings
from service.config.settings import Settings


def settings_of(context: click.Context, *, with_database: bool = True) -> Settings:
    """The settings that `--config` names. Wrong ones end the command with a line per mistake.

    A command that uses no database need not judge its URL.
    """
    find_mistakes = partial(find_unusable_urls, with_database=with_database)
    try:
        return load_settings(settings_path_of(context), os.environ, find_mistakes=find_mistakes)
    except SettingsError as error:
        raise click.ClickException(str(error)) from error


def settings_path_of(context: click.Context) -> Path:
    """The file that `--config` names."""
    path: str = context.find_root().obj
    return Path(path)
