"""`payment-callbacks gateway probe`: what an unknown gateway wants its requests to look like."""

import json
import time

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from service.cli.merchants import Chosen, choose, merchant_option
from service.cli.options import settings_of
from service.domain.masking import mask_personal
from service.gateway.cipher import RequestDialect
from service.gateway.errors import CallFailed, GatewayError
from service.gateway.messages import FAILED, SUCCEEDED
from service.gateway.probe import AnswerGroup, Probe, ProbeResult
from service.runtime.clock import now

#: What a probe learns, in the order in which it is learned.
_LEARNED = ("sign_separator", "sign_case", "key", "mode", "iv", "padding", "encoding")


@click.command()
@merchant_option
@click.option(
    "--pause-seconds",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Between two requests: gateways lock out who asks too fast.",
)
@click.option("--most-requests", default=400, show_default=True, type=click.IntRange(2, 5000))
@click.pass_context
def probe(context: click.Context, merchant: str | None, pause_seconds: float, most_requests: int) -> None:
    """Learn how a gateway wants requests signed and encrypted, and print the settings to pin.

    Asks for orders that do not exist, and for nothing else: no money can move. Ends with 1 where nothing was learned.
    """
    chosen = choose(settings_of(context), merchant)
    result = _run(chosen, pause_seconds=pause_seconds, most_requests=most_requests)
    console = Console(width=None if Console().is_terminal else 160)
    console.print(_table(result))
    if result.dialect is None or result.not_found is None:
        raise click.ClickException(_why_nothing(result))
    click.echo(f"\n# The gateway understands this; put it in the settings.\n{_settings(chosen, result)}")


def _run(chosen: Chosen, *, pause_seconds: float, most_requests: int) -> ProbeResult:
    with Progress(
        TextColumn("asking"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[tries]}"),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        task = progress.add_task("asking", total=most_requests, tries="")
        try:
            return Probe(
                settings=chosen.gateway,
                clock=now,
                pause=lambda: time.sleep(pause_seconds),
                on_request=lambda tries: progress.update(task, advance=1, tries=tries),
                most_requests=most_requests,
            ).run()
        except CallFailed as error:
            raise click.ClickException(f"the gateway does not answer: {error}") from error
        except GatewayError as error:
            raise click.ClickException(f"merchants.{chosen.merchant.slug}.gateway: {error}") from error


def _table(result: ProbeResult) -> Table:
    table = Table("HTTP", "status", "message", "requests", "what it means", "said to, among others", show_lines=True)
    for group in result.groups:
        table.add_row(*_row(group))
    return table


def _row(group: AnswerGroup) -> tuple[str | Text, ...]:
    kind = group.kind
    return (
        str(kind.http_status),
        kind.status or "-",
        Text(mask_personal(kind.message)),  # as it is: square brackets would be taken for markup
        str(group.requests),
        group.meaning.value,
        Text("\n".join(group.examples)),
    )


def _why_nothing(result: ProbeResult) -> str:
    if len(result.groups) == 1:
        return (
            "nothing was learned: one answer to everything. Check url, ua and aes_key, and whether the gateway has to "
            "be told our address"
        )
    if result.stopped:
        return f"nothing was learned yet: {result.stopped}. See --pause-seconds and --most-requests"
    return "nothing was learned: no guess was understood. Check aes_key; the table says what was told apart"


def _settings(chosen: Chosen, result: ProbeResult) -> str:
    where = f"merchants.{chosen.merchant.slug}.gateway"
    dialect: RequestDialect | None = result.dialect
    # json and key_sorting stay at their defaults: a question has one key, so that it cannot tell.
    lines = [f"[{where}]", *_not_found(result), "", f"[{where}.dialect]"]
    lines += [f"{name} = {_quoted(value)}" for name in _LEARNED if (value := getattr(dialect, name)) or name != "iv"]
    if result.stopped:
        lines += [f"# padding and encoding are likely and not certain: {result.stopped}"]
    return "\n".join(lines)


def _not_found(result: ProbeResult) -> list[str]:
    kind = result.not_found
    if kind is None or kind.status == SUCCEEDED:
        return ["# It answers status 1 for an order that it does not have: there is no message to tell it by."]
    if kind.status != FAILED:
        return [
            f"# It answers status {_quoted(kind.status)} for an order that it does not have. The document knows 1 and",
            "# -1 only, so such an answer is an unknown outcome: ask its people.",
        ]
    if "…" in kind.message or not kind.message:
        return ["# Its message for an order that it does not have is never the same, so none can be pinned."]
    return [f"not_found_messages = [{_quoted(kind.message)}]"]


def _quoted(text: str) -> str:
    # A JSON string is a TOML basic string, but for DEL.
    return json.dumps(str(text), ensure_ascii=False).replace("\x7f", "\\u007f")
