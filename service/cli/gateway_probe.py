"""`payment-callbacks gateway probe`: learns the request dialect of an unknown gateway."""

import json
import time

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from service.cli.options import choose_merchant, merchant_option, settings_of
from service.config.settings import GatewaySettings
from service.domain.masking import mask_personal
from service.gateway.cipher import RequestDialect
from service.gateway.errors import CallFailed, GatewayError
from service.gateway.probe import AnswerGroup, Probe, ProbeResult
from service.gateway.requests import FAILED, SUCCEEDED
from service.runtime.clock import now

# The settings that a probe learns, in the order in which it learns them.
_LEARNED = ("sign_separator", "sign_case", "key", "mode", "iv", "padding", "encoding")


@click.command()
@merchant_option
@click.option(
    "--pause-seconds",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="The pause between requests. Gateways may lock out clients that send too many.",
)
@click.option("--max-requests", default=400, show_default=True, type=click.IntRange(2, 5000))
@click.pass_context
def probe(context: click.Context, merchant: str | None, pause_seconds: float, max_requests: int) -> None:
    """Learn how a gateway expects requests to be signed and encrypted, and print the settings for it.

    Only queries orders that do not exist, so no money can move. The exit code is 1 if nothing was learned.
    """
    chosen, gateway_settings = choose_merchant(settings_of(context), merchant)
    where = f"merchants.{chosen.slug}.gateway"
    result = _run(gateway_settings, where, pause_seconds=pause_seconds, max_requests=max_requests)
    console = Console(width=None if Console().is_terminal else 160)
    console.print(_table(result))
    if result.dialect is None or result.not_found is None:
        raise click.ClickException(_why_nothing(result))
    click.echo(f"\n# The gateway understands this. Add it to the settings.\n{_settings(where, result)}")


def _run(settings: GatewaySettings, where: str, *, pause_seconds: float, max_requests: int) -> ProbeResult:
    with Progress(
        TextColumn("probing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[tries]}"),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        task = progress.add_task("probing", total=max_requests, tries="")
        try:
            return Probe(
                settings=settings,
                clock=now,
                pause=lambda: time.sleep(pause_seconds),
                on_request=lambda tries: progress.update(task, advance=1, tries=tries),
                max_requests=max_requests,
            ).run()
        except CallFailed as error:
            raise click.ClickException(f"the gateway does not answer: {error}") from error
        except GatewayError as error:
            raise click.ClickException(f"{where}: {error}") from error


def _table(result: ProbeResult) -> Table:
    table = Table("HTTP", "status", "message", "requests", "what it means", "answer to, e.g.", show_lines=True)
    for group in result.groups:
        table.add_row(*_row(group))
    return table


def _row(group: AnswerGroup) -> tuple[str | Text, ...]:
    kind = group.kind
    return (
        str(kind.http_status),
        kind.status or "-",
        Text(mask_personal(kind.message)),  # not markup, which square brackets would be
        str(group.requests),
        group.meaning.value,
        Text("\n".join(group.examples)),
    )


def _why_nothing(result: ProbeResult) -> str:
    if len(result.groups) == 1:
        return (
            "nothing was learned: every request had the same answer. Check url, ua and aes_key, and whether the "
            "gateway must allow our address"
        )
    if result.stopped:
        return f"nothing was learned yet: {result.stopped}. See --pause-seconds and --max-requests"
    return "nothing was learned: no guess was understood. Check aes_key; the table shows the different answers"


def _settings(where: str, result: ProbeResult) -> str:
    dialect: RequestDialect | None = result.dialect
    # json and key_sorting keep their defaults: a query has one key only, so it does not show them.
    lines = [f"[{where}]", *_not_found(result), "", f"[{where}.dialect]"]
    lines += [f"{name} = {_quoted(value)}" for name in _LEARNED if (value := getattr(dialect, name)) or name != "iv"]
    if result.stopped:
        lines += [f"# padding and encoding are likely but not certain: {result.stopped}"]
    return "\n".join(lines)


def _not_found(result: ProbeResult) -> list[str]:
    kind = result.not_found
    if kind is None or kind.status == SUCCEEDED:
        return ["# It answers status 1 for an order that it does not have, so there is no message to recognise it by."]
    if kind.status != FAILED:
        return [
            f"# It answers status {_quoted(kind.status)} for an order that it does not have. The document has 1 and -1",
            "# only, so such an answer is an unknown outcome: ask the gateway's support.",
        ]
    if "…" in kind.message or not kind.message:
        return ["# Its message for an order that it does not have varies, so it cannot be configured."]
    return [f"not_found_messages = [{_quoted(kind.message)}]"]


def _quoted(text: str) -> str:
    # Except for DEL, a JSON string is a TOML basic string.
    return json.dumps(str(text), ensure_ascii=False).replace("\x7f", "\\u007f")
