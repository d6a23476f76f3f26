"""`payment-callbacks sandbox`: a gateway to test against."""

import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click

from consumers.signals import stop_on_signals
from service.config.reading import SettingsError
from service.config.secrets import Secret
from service.gateway.errors import GatewayError
from service.runtime.logs import configure_logs
from service.sandbox.server import SandboxServer, help_text
from service.sandbox.settings import Account, SandboxSettings, load_sandbox_settings

#: Everybody knows its key, which is of no use elsewhere.
_DEFAULT_ACCOUNT = Account(
    ua="SANDBOX", aes_key=Secret("sandbox-aes-key0"), pay_types=frozenset({"sandbox_001"}), amount_unit="yuan"
)


@click.command()
@click.option(
    "--settings",
    "settings_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The sandbox's own settings, in TOML (docs/sandbox.md). The default is one account and no misbehaviour.",
)
@click.option("--bind", help="host:port to listen on; overrides the settings.  [default: 127.0.0.1:8090]")
def sandbox(settings_path: Path | None, bind: str | None) -> None:
    """Run a gateway to test against, with the document's four methods and its callbacks. It moves no money.

    Everything is kept in memory, and lost when it ends. Its help page is at its address.
    """
    configure_logs(stream=sys.stdout, human=sys.stdout.isatty())
    stop = threading.Event()
    stop_on_signals(stop)
    try:
        settings = (
            load_sandbox_settings(settings_path) if settings_path else SandboxSettings(accounts=[_DEFAULT_ACCOUNT])
        )
        settings = replace(settings, bind=bind or settings.bind)
        server = SandboxServer(settings=settings, clock=lambda: datetime.now(UTC))
    except (SettingsError, GatewayError) as error:
        raise click.ClickException(str(error)) from error
    except (OSError, OverflowError, ValueError) as error:
        raise click.ClickException(f"cannot listen on {bind or settings.bind}: {error}") from error
    with server:
        click.echo(f"The sandbox gateway is at {server.url}; accounts: {_accounts(settings)}\n")
        click.echo(help_text(settings.strictness))
        stop.wait()


def _accounts(settings: SandboxSettings) -> str:
    # Without keys: the default account's is in the documentation, and others are secret.
    return ", ".join(f"{account.ua} ({', '.join(sorted(account.pay_types))})" for account in settings.accounts)
