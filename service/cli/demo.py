"""`payment-callbacks demo`: the whole service on this machine, against a gateway that behaves badly."""

import json
import secrets
import signal
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console

from service.demo.downstream import Downstream
from service.demo.printer import EventPrinter
from service.demo.report import DemoReport, draw_table
from service.demo.run import DemoRun
from service.demo.stage import MERCHANT, PAY_TYPE, Stage
from service.gateway.json_dialects import find_dialect
from service.gateway.signature import sign_callback
from service.gateway.strict_json import JsonValue
from service.runtime.logs import configure_logs

_INTRODUCTION = """\
[bold]payment-callbacks, the whole way on this one machine[/]

  gateway 代扣沙箱 ─ callbacks → receiver → queue → ledger → dispatcher → shop
                   ← questions 主动查询 ─ inquirer ←──┘

The gateway charges orders and calls back; it repeats, delays and reorders its callbacks. Some orders it never calls \
back about, about others it tells the opposite of the truth, and some withholds it leaves unanswered. Meanwhile \
somebody forges callbacks for the same orders, each with a correct sign: the gateway's sign 签名 holds no secret.
{belief}
The shop must hear of each real change exactly once, and of nothing else. Here is what it hears of the first orders, \
whose numbers say what the sandbox does with them:
"""

#: By the trust that the merchant requires.
_BELIEFS = {
    "query": "So no callback is believed: each is a reason to ask the gateway, and only its answer counts.",
    "capability": (
        "Here callbacks on the order's own, unguessable notify_url are believed. That keeps forgers out; against a "
        "gateway whose own callbacks lie it cannot help: expect red figures."
    ),
    "checksum": "Here every callback with a correct sign is believed, a forger's and a liar's too: expect red figures.",
}
_FORGERY_ANSWERS = {
    "query": "the receiver answers `success`, and nobody believes it: the gateway is asked",
    "capability": "the receiver answers `fail`, and its log says why",
    "checksum": "the receiver answers `success`, for it cannot tell it from the gateway's",
}

#: Orders of which every event is shown; of the others, the figures. The words are the sandbox's.
_FOLLOWED = (
    "DEMO-00001-success",
    "DEMO-00002-silent",
    "DEMO-00003-lie",
    "DEMO-00004-lost",
    "DEMO-00005-fail-silent-lost",
)


@click.command()
@click.option("--exit", "ends", is_flag=True, help="End after the table instead of staying up until Ctrl-C.")
@click.option(
    "--report", "report_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures as JSON."
)
@click.option(
    "--orders", default=200, show_default=True, type=click.IntRange(1, 5000), help="How many withholds to send."
)
@click.option(
    "--required-trust",
    default="query",
    show_default=True,
    type=click.Choice(list(_BELIEFS)),
    help="Whom the merchant believes: only the gateway's answers; callbacks on the order's own notify_url (a liar gets "
    "through); every correct sign (forgers, too).",
)
def demo(ends: bool, report_path: Path | None, orders: int, required_trust: str) -> None:
    """Run everything against a misbehaving sandbox, and count whether each order came out right.

    Ends with 1 where a forgery or a lie was believed, or an order ended wrong, was told twice, is missing or still
    open.
    """
    started = time.monotonic()
    console = Console()
    console.print(_INTRODUCTION.format(belief=_BELIEFS[required_trust]), highlight=False)
    with _sigterm_as_exit(), _folder() as folder, (folder / "demo.log").open("w", encoding="utf-8") as log:
        # What this process logs as the merchant's own system is kept beside what the roles log.
        configure_logs(stream=log, human=False)
        webhook_secret = "whsec_" + b64encode(secrets.token_bytes(32)).decode()
        unscripted = (f"DEMO-{number:05d}" for number in range(len(_FOLLOWED) + 1, orders + 1))
        order_nos = [*_FOLLOWED[:orders], *unscripted]
        printer = EventPrinter(console, followed=_FOLLOWED)
        downstream = Downstream(secret=webhook_secret, on_event=printer.show)
        stage = Stage(
            folder=folder, downstream_url=downstream.url, webhook_secret=webhook_secret, required_trust=required_trust
        )
        with stage:
            # The processes first: they are forked while this one has no other threads.
            stage.start()
            with downstream:
                run = DemoRun(stage=stage, downstream=downstream, console=console)
                report = run.perform(order_nos, started=started)
                _hand_over(report, report_path, console, required_trust)
                if not ends:
                    printer.show_all()
                    _stay_up(stage, console, required_trust)
    if not report.good:
        sys.exit(1)


def _hand_over(report: DemoReport, path: Path | None, console: Console, required_trust: str) -> None:
    console.print(draw_table(report))
    if report.good:
        console.print("[green]Every order ended as the gateway has it, told once; nothing false was believed.[/]")
    elif required_trust == "query":
        console.print("[bold red]The service has not kept its promise: see the red figures.[/]")
    else:
        console.print(f"[bold red]The red figures are the price of `{required_trust}`: `query` would have asked.[/]")
    if path is not None:
        try:
            path.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"the report cannot be written: {error}") from error


def _stay_up(stage: Stage, console: Console, required_trust: str) -> None:
    console.print(
        f"""
Still up, until Ctrl-C:
  the sandbox gateway   {stage.sandbox_url}  (its help page; /admin/orders, /admin/report)
  the receiver          {stage.receiver_url}/notify/demo/TOKEN
  settings, data, logs  {stage.folder}
Any other command works on it:
  payment-callbacks --config {stage.settings_path} orders show {MERCHANT} {_FOLLOWED[0]}
Forge a callback yourself, with a correct sign; {_FORGERY_ANSWERS[required_trust]}:
  {_forgery(stage)}
Whatever reaches the shop from now on is shown here.""",
        highlight=False,
        soft_wrap=True,
    )
    try:
        while True:
            stage.check()
            time.sleep(0.5)
    except KeyboardInterrupt:
        console.print("Ending.")


def _forgery(stage: Stage) -> str:
    """A command line that claims that the first order had failed."""
    fields: dict[str, JsonValue] = {
        "biz_order_no": _FOLLOWED[0],
        "pay_order_no": "FORGED1",
        "order_type": "single_withhold",
        "pay_type": PAY_TYPE,
        "pay_status": "fail",
        "pay_time": "",
        "channel_response": "",
    }
    body = json.dumps({**fields, "sign": sign_callback(fields, find_dialect("php"))}, separators=(",", ":"))
    return f"curl -H 'Content-Type: application/json' -d '{body}' {stage.receiver_url}/notify/{MERCHANT}"


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="payment-callbacks-demo-") as name:
        yield Path(name)


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """SIGTERM leaves through every `finally`, so that no child and no folder stays behind."""

    def leave(_number: int, _frame: object) -> NoReturn:
        sys.exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
