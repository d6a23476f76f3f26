"""`payment-callbacks dead`: list, show, replay and drop dead letters, the messages that could not be recorded."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from service.cli.ledger_access import author_of, open_ledger
from service.cli.options import log_to_stderr, settings_of
from service.cli.tables import time_text
from service.domain.masking import escape_controls
from service.ledger.dead_letters import DeadLetterAction, DeadLetterRecord, DeadLetterStore
from service.ledger.errors import DeadLetterUnknown

_MOST = 1000
_LOOK_SECONDS = 0.5
_OUTCOMES = {DeadLetterAction.REPLAY: "replayed", DeadLetterAction.DROP: "dropped"}


@click.group()
def dead() -> None:
    """Dead letters: messages that could not be recorded. Find and fix the cause, then replay or drop them.

    The ledger role records each one within seconds, and carries out what you request.
    """
    log_to_stderr()


@dead.command(name="list")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, _MOST))
@click.pass_context
def list_(context: click.Context, limit: int) -> None:
    """List dead letters, oldest first: id, time, reason, and what somebody has requested."""
    with _open_store(context) as store:
        letters = store.load_open(limit=limit)
    for letter in letters:
        died_at = letter.died_at.isoformat(sep=" ", timespec="milliseconds")
        requested = f"  ({_request(letter)})" if letter.requested else ""
        click.echo(escape_controls(f"{letter.id}  {died_at}  {letter.reason}{requested}"))
    click.echo(f"{len(letters)} dead letters" + (" or more" if len(letters) == limit else ""), err=True)


@dead.command()
@click.argument("id_", metavar="ID")
@click.pass_context
def show(context: click.Context, id_: str) -> None:
    """Show a dead letter, or what became of it. Personal data in its body is masked."""
    with _open_store(context) as store:
        found = store.load([id_])
    if not found:
        raise _unknown(id_)
    (letter,) = found
    lines = [
        f"id:        {letter.id}",
        f"died at:   {letter.died_at.isoformat()}",
        f"reason:    {letter.reason}",
        *([f"requested: {_request(letter)}: {letter.requested_reason}"] if letter.requested else []),
        *([f"settled:   {time_text(letter.settled_at)}, {letter.outcome}"] if letter.settled_at else []),
    ]
    # Anyone may have sent this text, so it must not control the terminal.
    for line in lines:
        click.echo(escape_controls(line))
    click.echo(escape_controls(letter.body, keep="\n\t"))


def _settling(command: Callable[..., None]) -> Callable[..., None]:
    """The arguments and options of the commands that settle dead letters."""
    options: Sequence[Callable[[Any], Any]] = (
        click.argument("ids", metavar="[ID]...", nargs=-1),
        click.option("--all", "everything", is_flag=True, help=f"Take all of them, but at most the oldest {_MOST}."),
        click.option("--reason", help="Why. The audit keeps it."),
        click.option("--by", help="Who does it. The default is the user who runs this."),
        click.option(
            "--wait",
            "wait_seconds",
            default=30,
            show_default=True,
            type=click.IntRange(0, 3600),
            help="How many seconds to wait until the ledger role has done it.",
        ),
        click.pass_context,
    )
    for option in reversed(options):
        command = option(command)
    return command


@dead.command()
@_settling
def replay(context: click.Context, /, **wanted: Any) -> None:
    """Put dead letters back into the queue. A message that was recorded before changes nothing."""
    _settle(context, DeadLetterAction.REPLAY, **wanted)


@dead.command()
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@_settling
def drop(context: click.Context, /, *, yes: bool, **wanted: Any) -> None:
    """Delete dead letters for good."""
    _settle(context, DeadLetterAction.DROP, confirm=not yes, **wanted)


def _settle(
    context: click.Context,
    action: DeadLetterAction,
    *,
    ids: tuple[str, ...],
    everything: bool,
    reason: str | None,
    by: str | None,
    wait_seconds: int,
    confirm: bool = False,
) -> None:
    """Request it of the ledger role, wait until it is done, and say what became of the letters."""
    if everything == bool(ids):
        raise click.UsageError("name ids, or use --all")
    author = author_of(by, reason)
    with _open_store(context) as store:
        chosen = {letter.id for letter in store.load_open(limit=_MOST)} if everything else set(ids)
        if not chosen:
            click.echo("there are no dead letters")
            return
        if confirm:
            click.confirm(f"Delete {len(chosen)} messages for good?", abort=True)
        try:
            store.request(chosen, action, author=author)
        except DeadLetterUnknown as error:
            raise _unknown(str(error)) from error
        letters = _await_settled(store, chosen, wait_seconds)
    waiting = [letter for letter in letters if _waits(letter)]
    # What was replayed and could not be recorded again is an open letter without a request.
    outcomes = Counter(letter.outcome or "failed again" for letter in letters if not _waits(letter))
    for outcome, count in outcomes.items():
        click.echo(f"{outcome}: {count}")
    if waiting:
        click.echo(
            f"requested: {len(waiting)}. The ledger role has not done it yet: see whether it runs and reaches the "
            f"queue. `payment-callbacks dead show {waiting[0].id}` says what became of the first one."
        )
    if outcomes.keys() - {_OUTCOMES[action]}:
        raise click.ClickException(f"some were not {_OUTCOMES[action]}; `payment-callbacks dead show ID` says why")


def _await_settled(store: DeadLetterStore, ids: Collection[str], wait_seconds: float) -> Sequence[DeadLetterRecord]:
    """The letters, once all are settled or the time is up."""
    give_up_at = time.monotonic() + wait_seconds
    while True:
        letters = store.load(ids)
        if not any(_waits(letter) for letter in letters) or time.monotonic() >= give_up_at:
            return letters
        time.sleep(_LOOK_SECONDS)


@contextmanager
def _open_store(context: click.Context) -> Iterator[DeadLetterStore]:
    with open_ledger(settings_of(context)) as engine:
        yield DeadLetterStore(engine=engine)


def _waits(letter: DeadLetterRecord) -> bool:
    return letter.settled_at is None and letter.requested is not None


def _request(letter: DeadLetterRecord) -> str:
    return f"{letter.requested} requested by {letter.requested_by}"


def _unknown(id_: str) -> click.ClickException:
    return click.ClickException(
        f"no dead letter has the id {escape_controls(id_)}; `payment-callbacks dead list` lists them"
    )
