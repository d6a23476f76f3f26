"""What the commands share: settings, logs, times, words, and the choice of an endpoint or a merchant."""

import os
import sys
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import click

from service.bootstrap.urls import find_unusable_urls
from service.config.endpoints import AnyEndpoint
from service.config.reading import SettingsError, load_settings
from service.config.settings import GatewaySettings, MerchantSettings, Settings

#: How an `AwareTime` is written.
TIME_HELP = "An ISO 8601 time with its zone, e.g. 2026-01-05T20:00:00+08:00."


class AwareTime(click.ParamType[datetime]):
    """A time with its zone: local time on a server is ambiguous."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read it."""
        try:
            time = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a time; {TIME_HELP}", param, ctx)
        if time.tzinfo is None:
            self.fail(f"{value!r} does not say its zone; {TIME_HELP}", param, ctx)
        return time


class Word(click.Choice[Any]):
    """One of some members of a StrEnum, by its value."""

    def normalize_choice(self, choice: object, ctx: click.Context | None) -> str:  # noqa: ARG002 - click names it
        """The word for a member."""
        return str(choice)


def settings_of(context: click.Context, *, with_database: bool = True) -> Settings:
    """The settings that `--config` names. Mistakes end the command with a line each.

    Without `with_database`, the URL of the database is not checked.
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


def find_endpoint(settings: Settings, name: str) -> AnyEndpoint:
    """The endpoint of that name. Raises `click.UsageError`."""
    for endpoint in settings.endpoints:
        if endpoint.name == name:
            return endpoint
    known = ", ".join(endpoint.name for endpoint in settings.endpoints) or "none"
    raise click.UsageError(f"no endpoint is called {name}; the settings know {known}")


#: `--merchant`, for `choose_merchant`.
merchant_option = click.option("--merchant", help="Its slug; may be left out where only one merchant has a gateway.")


def choose_merchant(settings: Settings, slug: str | None) -> tuple[MerchantSettings, GatewaySettings]:
    """The merchant of that slug, or the only one that has a gateway, and its gateway. Raises `click.UsageError`."""
    able = [(merchant, merchant.gateway) for merchant in settings.merchants.values() if merchant.gateway]
    chosen = [one for one in able if slug in (None, one[0].slug)]
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(merchant.slug for merchant, _ in able) or "none"
    raise click.UsageError(f"name a merchant that has a gateway, by --merchant; those that have one: {names}")


def log_to_stderr() -> None:
    """Write logs to standard error, because standard output is for the command's result."""
    from service.runtime.logs import configure_logs  # some commands never log

    configure_logs(stream=sys.stderr, human=sys.stderr.isatty())
