"""`payment-callbacks dead`: list, show, replay and drop dead letters, the messages that could not be applied."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import click

from service.bootstrap.messaging import make_dead_letters
from service.cli.escaping import escape_controls
from service.cli.options import log_to_stderr, settings_of
from service.domain.masking import mask_personal
from service.messaging.contract import DeadLetter, DeadLetters
from service.messaging.errors import MessagingError

Outcome = TypeVar("Outcome")

_MOST = 1000


@click.group()
def dead() -> None:
    """Dead letters: messages that could not be applied. Find and fix the cause, then replay or drop them."""
    log_to_stderr()


@dead.command(name="list")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, _MOST))
@click.pass_context
def list_(context: click.Context, limit: int) -> None:
    """List dead letters, oldest first: id, time and reason."""
    letters = _all(context, limit)
    for letter in letters:
        died_at = letter.died_at.isoformat(sep=" ", timespec="milliseconds")
        click.echo(f"{letter.id}  {died_at}  {escape_controls(letter.reason)}")
    click.echo(f"{len(letters)} dead letters" + (" or more" if len(letters) == limit else ""), err=True)


@dead.command()
@click.argument("id_", metavar="ID")
@click.option("--unmasked", is_flag=True, help="Show personal data in the body as it is.")
@click.pass_context
def show(context: click.Context, id_: str, unmasked: bool) -> None:
    """Show a dead letter with its headers and body."""
    found = [letter for letter in _all(context, _MOST) if letter.id == id_]
    if not found:
        raise click.ClickException(f"no dead letter has the id {id_}; `payment-callbacks dead list` shows them")
    letter = found[0]
    body = letter.message.body.decode("utf-8", errors="backslashreplace")
    lines = [
        f"id:      {letter.id}",
        f"died at: {letter.died_at.isoformat()}",
        f"reason:  {letter.reason}",
        f"type:    {letter.message.type}",
        *(f"header:  {name}: {value}" for name, value in letter.message.headers.items()),
    ]
    # Anyone may have sent this text, so it must not control the terminal.
    for line in lines:
        click.echo(escape_controls(line))
    click.echo(escape_controls(body if unmasked else mask_personal(body), keep="\n\t"))


@dead.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help=f"Take all of them, but at most the oldest {_MOST}.")
@click.pass_context
def replay(context: click.Context, ids: tuple[str, ...], everything: bool) -> None:
    """Put dead letters back into the queue. A message that was applied before changes nothing."""
    letters, chosen = _open(context), _chosen(context, ids, everything)
    _report("replayed", _attempt(lambda: letters.replay(chosen)), len(chosen))


@dead.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help=f"Take all of them, but at most the oldest {_MOST}.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.pass_context
def drop(context: click.Context, ids: tuple[str, ...], everything: bool, yes: bool) -> None:
    """Delete dead letters for good."""
    letters, chosen = _open(context), _chosen(context, ids, everything)
    if not yes:
        click.confirm(f"Delete {len(chosen)} messages for good?", abort=True)
    _report("dropped", _attempt(lambda: letters.drop(chosen)), len(chosen))


def _open(context: click.Context) -> DeadLetters:
    return make_dead_letters(settings_of(context))


def _all(context: click.Context, limit: int) -> Sequence[DeadLetter]:
    letters = _open(context)
    return _attempt(lambda: letters.list(limit=limit))


def _chosen(context: click.Context, ids: tuple[str, ...], everything: bool) -> Sequence[str]:
    if everything == bool(ids):
        raise click.UsageError("name ids, or use --all")
    return [letter.id for letter in _all(context, _MOST)] if everything else ids


def _report(done: str, count: int, asked: int) -> None:
    click.echo(f"{done}: {count}")
    if count < asked:
        raise click.ClickException(f"{asked - count} of the named ids are not among the dead letters")


def _attempt(action: Callable[[], Outcome]) -> Outcome:
    try:
        return action()
    except MessagingError as error:
        raise click.ClickException(str(error)) from error
