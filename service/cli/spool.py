"""`payment-callbacks spool`: wait until a receiver has forwarded its spool."""

import time

import click

from service.bootstrap.messaging import make_spool
from service.cli.options import settings_of
from service.messaging.errors import MessagingError

_PAUSE_SECONDS = 0.5


@click.group()
def spool() -> None:
    """The spool: callbacks that are kept on disk while RabbitMQ is away."""


@spool.command()
@click.option(
    "--within",
    "max_seconds",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="The longest wait, in seconds.",
)
@click.option(
    "--at-least",
    "min_seconds",
    type=click.FloatRange(min=0),
    default=0.0,
    help="The shortest wait, in seconds, even if the spool is empty.",
)
@click.pass_context
def drain(context: click.Context, max_seconds: float, min_seconds: float) -> None:
    """Wait until the running receiver has forwarded its spool. The exit status is 1 if that takes too long.

    This command forwards nothing itself, and the receiver goes on receiving. Run it before a receiver is stopped for
    good, once callbacks go elsewhere: then an empty spool stays empty.
    """
    settings = settings_of(context)
    queue = make_spool(settings)
    started = time.monotonic()
    try:
        while True:
            left = queue.depth().messages if queue.path.exists() else 0
            passed_seconds = time.monotonic() - started
            if (not left and passed_seconds >= min_seconds) or passed_seconds >= max_seconds:
                break
            time.sleep(_PAUSE_SECONDS)
    except MessagingError as error:
        raise click.ClickException(str(error)) from error
    finally:
        queue.close(timeout_seconds=1.0)
    if left:
        raise click.ClickException(f"{left} callbacks are still in {queue.path}, for the next receiver that uses it")
    click.echo("The spool is empty.")
