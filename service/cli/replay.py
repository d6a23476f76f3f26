"""`payment-callbacks replay`: deliver events to an endpoint again."""

import shlex
import sys
import time
from datetime import datetime
from typing import Any

import click

from service.cli.ledger_access import author_of, open_ledger
from service.cli.options import TIME_HELP, AwareTime, Word, find_endpoint, log_to_stderr, settings_of
from service.cli.tables import time_text
from service.domain.claims import OrderStatus
from service.ledger.audit import Author
from service.ledger.errors import ReplayCountDiffers
from service.ledger.outbox import Outbox
from service.ledger.replays import DEFAULT_PER_SECOND, ReplayRecord, Replays, ReplayState, ReplayWindow
from service.runtime.clock import now

_LOOK_SECONDS = 0.5


@click.command()
@click.argument("event_ids", metavar="[EVENT_ID]...", nargs=-1)
@click.option("--endpoint", help="Its name in the settings.")
@click.option("--parked", is_flag=True, help="All events that are parked: their last attempt failed.")
@click.option("--since", type=AwareTime(), help=f"All events that were made at this time or later. {TIME_HELP}")
@click.option("--until", type=AwareTime(), help="With --since: only events that were made before this. Default: now.")
@click.option("--status", type=Word(OrderStatus), help="With --since: only this status.")
@click.option("--order-type", help="With --since: only this order type.")
@click.option("--confirm", type=int, metavar="COUNT", help="With --since: replay, if there are this many events.")
@click.option(
    "--per-second",
    type=click.IntRange(1, 1000),
    default=DEFAULT_PER_SECOND,
    show_default=True,
    help="With --since: the most events per second.",
)
@click.option("--watch", type=int, metavar="ID", help="Show the progress of a replay until it ends.")
@click.option("--stop", type=int, metavar="ID", help="Stop a replay.")
@click.option("--reason", help="Why. The audit keeps it.")
@click.option("--by", help="Who does it. The default is the user who runs this.")
@click.pass_context
def replay(
    context: click.Context,
    /,
    event_ids: tuple[str, ...],
    endpoint: str | None,
    reason: str | None,
    by: str | None,
    watch: int | None,
    stop: int | None,
    **wanted: Any,
) -> None:
    """Deliver events to an endpoint again: those that are named, all that are --parked, or all --since a time.

    `orders show` prints event ids. A replayed event has the same id and bytes as before, so a receiver that dedupes by
    id ignores it. Only events that the endpoint subscribed to when they were made can be replayed.

    With --since, the first run only counts, and prints the command that replays. The dispatchers carry it out, slowly
    enough for new events to go on. It survives restarts; Ctrl-C only ends the display.
    """
    log_to_stderr()
    chosen = [bool(event_ids), wanted["parked"], wanted["since"] is not None, watch is not None, stop is not None]
    if sum(chosen) != 1:
        raise click.UsageError("name event ids, or use one of --parked, --since, --watch and --stop")
    if wanted["since"] is None and (used := [name for name in _WINDOW_ONLY if wanted[name] is not None]):
        raise click.UsageError(f"--{used[0].replace('_', '-')} needs --since")
    settings = settings_of(context)
    with open_ledger(settings) as engine:
        if watch is not None:
            _watch(Replays(engine=engine), watch)
            return
        if stop is not None:
            stopped = Replays(engine=engine).stop(stop, author=author_of(by, reason))
            click.echo(_describe(_known(stopped, stop)))
            return
        if endpoint is None:
            raise click.UsageError("--endpoint is missing")
        find_endpoint(settings, endpoint)
        if wanted["since"] is None:
            _replay_at_once(Outbox(engine=engine), event_ids, endpoint, author_of(by, reason))
        else:
            _replay_window(Replays(engine=engine), endpoint, by=by, reason=reason, **wanted)


_WINDOW_ONLY = ("until", "status", "order_type", "confirm")


def _replay_at_once(outbox: Outbox, event_ids: tuple[str, ...], endpoint: str, author: Author) -> None:
    """Make the named events, or all that are parked, due again."""
    if not event_ids:
        click.echo(f"due again: {outbox.replay_parked(endpoint=endpoint, author=author)}")
        return
    found = outbox.replay(event_ids, endpoint=endpoint, author=author)
    click.echo(f"due again: {found}")
    if found < len(set(event_ids)):
        raise click.ClickException(f"{len(set(event_ids)) - found} of the named events were never meant for {endpoint}")


def _replay_window(
    replays: Replays,
    endpoint: str,
    *,
    since: datetime,
    until: datetime | None,
    status: OrderStatus | None,
    order_type: str | None,
    confirm: int | None,
    per_second: int,
    by: str | None,
    reason: str | None,
    **_: Any,
) -> None:
    present = now()
    until = until or present
    if not since < until:
        raise click.UsageError(f"--since must be before --until, which is {until.isoformat()}")
    if until > present:
        raise click.UsageError("--until is in the future: further events may still be made before it")
    window = ReplayWindow(endpoint=endpoint, since=since, until=until, status=status, order_type=order_type)
    if confirm is None:
        _count(replays, window, per_second)
        return
    try:
        made = replays.request(window, expected=confirm, per_second=per_second, author=author_of(by, reason))
    except ReplayCountDiffers as error:
        said = f"nothing was replayed: {error}, not {confirm}. Look again, without --confirm"
        raise click.ClickException(said) from error
    _watch(replays, made.id)


def _count(replays: Replays, window: ReplayWindow, per_second: int) -> None:
    """Print how many events the window has, and the command that replays them."""
    count = replays.count(window)
    click.echo(f"events for {window.endpoint}: {count}, in about {-(-count // per_second)} s. Nothing was replayed.")
    if not count:
        return
    options = ["--endpoint", window.endpoint, "--since", window.since.isoformat(), "--until", window.until.isoformat()]
    options += [] if window.status is None else ["--status", window.status.value]
    options += [] if window.order_type is None else ["--order-type", window.order_type]
    options += ["--per-second", str(per_second), "--confirm", str(count)]
    click.echo(f"To replay them: payment-callbacks replay {shlex.join(options)} --reason '...'")


def _watch(replays: Replays, number: int) -> None:
    """Show a replay's progress until it ends."""
    found = _known(replays.load(number), number)
    click.echo(f"replay {number}: `replay --watch {number}` shows it again, `replay --stop {number}` ends it", err=True)
    with click.progressbar(length=found.total, label=f"replay {number}", file=sys.stderr) as bar:
        shown = 0
        while True:
            bar.update(found.done - shown)
            shown = found.done
            if found.state is not ReplayState.RUNNING:
                break
            time.sleep(_LOOK_SECONDS)
            found = _known(replays.load(number), number)
    click.echo(_describe(found))


def _known(found: ReplayRecord | None, number: int) -> ReplayRecord:
    if found is None:
        raise click.ClickException(f"there is no replay {number}")
    return found


def _describe(found: ReplayRecord) -> str:
    return (
        f"replay {found.id} to {found.window.endpoint}, by {found.requested_by} at {time_text(found.requested_at)}: "
        f"{found.state.value}, due again: {found.done} of {found.total}"
    )
