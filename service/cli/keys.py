"""`payment-callbacks keys`: make secret keys."""

import base64
import secrets

import click


@click.group()
def keys() -> None:
    """Make keys."""


@keys.command()
@click.option("--webhook", is_flag=True, help="A secret for a webhook endpoint instead of a notify_url token key.")
def new(webhook: bool) -> None:
    """Print a new key of 256 random bits. Store it where the settings' { env } or { file } points to."""
    if webhook:
        click.echo("whsec_" + base64.b64encode(secrets.token_bytes(32)).decode())
    else:
        click.echo(secrets.token_urlsafe(32))
