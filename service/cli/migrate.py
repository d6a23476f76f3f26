"""`payment-callbacks migrate`: migrate the ledger's database to this release's schema."""

import click

from service.cli.ledger_access import migration_engine_of
from service.cli.options import settings_of
from service.ledger.errors import LedgerUnavailable
from service.ledger.schema import migrate as migrate_engine


@click.command()
@click.pass_context
def migrate(context: click.Context) -> None:
    """Migrate the ledger's database to this release's schema. Safe to repeat, and to run several times at once."""
    engine = migration_engine_of(settings_of(context))
    try:
        migrate_engine(engine)
    except LedgerUnavailable as error:
        raise click.ClickException(f"the database cannot be used: {error}") from error
    click.echo("The ledger has this release's schema.")
