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

from service.cli.demo_downstream import Downstream
from service.cli.demo_printer import EventPrinter
from service.cli.demo_report import DemoReport, draw_table
from service.cli.demo_run import DemoRun
from service.cli.demo_stage import MERCHANT, PAY_TYPE, Stage
from service.gateway.canonical import find_dialect
from service.gateway.signature import sign_callback
from service.gateway.tokens import JsonValue
from service.logs import configure_logs

_INTRODUCTION = """\
[bold]payment-callbacks, the whole way on this one machine[/]

  sandbox gateway 代扣沙箱 → receiver (gunicorn) → durable queue → ledger
                                    → dispatcher → shop (signed webhooks)

The gateway charges orders and calls back; it repeats, delays and reorders its callbacks, and loses some answers. \
Meanwhile somebody forges callbacks for the same orders, each with a correct sign: the gateway's sign 签名 holds no \
secret, so anyone can make one. What the forger cannot know is the order's own, unguessable notify_url.
The shop must hear of each real change exactly once, and of nothing else. Here is what it hears of the first orders:
"""

#: Orders of which every event is shown; of the others, the figures.
_FOLLOWED = 5


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
    default="capability",
    show_default=True,
    type=click.Choice(["capability", "checksum"]),
    help="What the merchant asks of a callback; `checksum` believes the sign, and shows what forgers make of that.",
)
def demo(ends: bool, report_path: Path | None, orders: int, required_trust: str) -> None:
    """Run everything against a misbehaving sandbox, and count whether each order came out right.

    Ends with 1 where a forgery was believed, or an order ended wrong, was told twice or is missing.
    """
    started = time.monotonic()
    console = Console()
    console.print(_INTRODUCTION, highlight=False)
    with _sigterm_as_exit(), _folder() as folder, (folder / "demo.log").open("w", encoding="utf-8") as log:
        # What this process logs as the merchant's own system is kept beside what the roles log.
        configure_logs(stream=log, human=False)
        webhook_secret = "whsec_" + b64encode(secrets.token_bytes(32)).decode()
        order_nos = [f"DEMO-{number:05d}" for number in range(1, orders + 1)]
        printer = EventPrinter(console, followed=order_nos[:_FOLLOWED])
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
                _hand_over(report, report_path, console)
                if not ends:
                    printer.show_all()
                    _stay_up(stage, console)
    if not report.good:
        sys.exit(1)


def _hand_over(report: DemoReport, path: Path | None, console: Console) -> None:
    console.print(draw_table(report))
    if report.good:
        console.print("[green]Every order ended as the gateway has it, told once, and no forgery was believed.[/]")
    else:
        console.print("[bold red]The service has not kept its promise: see the red figures.[/]")
    if path is not None:
        try:
            path.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"the report cannot be written: {error}") from error


def _stay_up(stage: Stage, console: Console) -> None:
    console.print(
        f"""
Still up, until Ctrl-C:
  the sandbox gateway   {stage.sandbox_url}  (its help page; /admin/orders, /admin/report)
  the receiver          {stage.receiver_url}/notify/demo/TOKEN
  settings, data, logs  {stage.folder}
Any other command works on it: payment-callbacks --config {stage.settings_path} dead list
Forge a callback yourself, with a correct sign; the receiver answers `fail`, and its log says why:
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
        "biz_order_no": "DEMO-00001",
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
