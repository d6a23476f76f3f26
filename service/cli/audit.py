"""`payment-callbacks audit`: what operators have changed and decided."""

import click

from service.cli.ledger_access import open_ledger
from service.cli.options import log_to_stderr, settings_of
from service.cli.tables import add_row, make_console, make_table, time_text
from service.ledger.audit import list_changes


@click.command()
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 500))
@click.option("--before", type=int, metavar="ID", help="Only changes before this one, for the next page.")
@click.pass_context
def audit(context: click.Context, limit: int, before: int | None) -> None:
    """List what operators have changed and decided, the latest first: when, who, what and why."""
    log_to_stderr()
    with open_ledger(settings_of(context)) as engine:
        changes = list_changes(engine, limit=limit, before=before)
    table = make_table("", "id", "changed", "by", "what", "of", "reason")
    for change in changes:
        who = (time_text(change.changed_at), change.changed_by)
        add_row(table, str(change.id), *who, change.action.value, change.subject, change.reason)
    make_console().print(table)
