"""`payment-callbacks demo`: the whole service on this machine, against a misbehaving gateway."""

import json
import secrets
import signal
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console

from service.demo.deployment import MERCHANT, PAY_TYPE, SECOND_PERSON_ABOVE, SHOP, DemoDeployment
from service.demo.downstream import Downstream, EventPrinter
from service.demo.report import DemoReport, draw_table
from service.demo.run import DemoRun
from service.gateway.bodies import JsonValue
from service.gateway.json_dialects import find_dialect
from service.gateway.signature import sign_callback
from service.runtime.logs import configure_logs

_INTRODUCTION = """\
[bold]payment-callbacks: the whole service on this machine[/]

  gateway 代扣沙箱 ─ callbacks → receiver → queue → ledger → dispatcher → shop
                   ←─ queries 主动查询 ── inquirer ←──┘

The gateway charges orders and sends callbacks. It repeats, delays and reorders them. For some orders it sends no \
callback, for others a false one, and some withholds it does not answer. Meanwhile somebody forges callbacks for the \
same orders, each with a correct sign: the gateway's sign 签名 holds no secret.
{belief}
The shop must hear of each real change exactly once, and of nothing else. These are its events for the first orders, \
whose numbers say what the sandbox does with them:
"""

#: By the trust that the merchant requires.
_BELIEFS = {
    "query": "So no callback is believed. Each one is a reason to query the gateway, and only its answer counts.",
    "capability": (
        "Here callbacks on the order's own, unguessable notify_url are believed. That keeps forgers out, but "
        "does not help against a gateway whose own callbacks are false: expect red figures."
    ),
    "checksum": "Here every callback with a correct sign is believed, forged and false ones too: expect red figures.",
}
_FORGERY_ANSWERS = {
    "query": "the receiver answers `success`, and the gateway is queried instead of believing it",
    "capability": "the receiver answers `fail`, and its log says why",
    "checksum": "the receiver answers `success`, because it cannot tell it from the gateway's own",
}

#: Orders whose events are shown. Their numbers hold keywords of the sandbox.
_FOLLOWED = (
    "DEMO-00001-success",
    "DEMO-00002-silent",
    "DEMO-00003-lie",
    "DEMO-00004-lost",
    "DEMO-00005-fail-silent-lost",
)
#: The amounts of the orders that are left to a person: below and above what one person may settle alone.
_STUCK_YUAN = (20, 80)
#: Without a repeated event for this long, a replay is taken to have ended.
_PAUSE_SECONDS = 2.0


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
    help="What the merchant believes: `query`: only the gateway's answers; `capability`: also callbacks on the order's "
    "own notify_url, even if the gateway sends false ones; `checksum`: every correct sign, forged callbacks too.",
)
def demo(ends: bool, report_path: Path | None, orders: int, required_trust: str) -> None:
    """Run everything against a misbehaving sandbox, and check that every order ends correctly.

    The exit status is 1 if a forged or false callback was believed, or if an order has a wrong final status, more than
    one terminal event, no terminal event, or is still open.
    """
    started = time.monotonic()
    console = Console()
    console.print(_INTRODUCTION.format(belief=_BELIEFS[required_trust]), highlight=False)
    with _ended_by_signals(), _folder() as folder, (folder / "demo.log").open("w", encoding="utf-8") as log:
        # This process logs as the merchant's own system, beside the logs of the roles.
        configure_logs(stream=log, human=False)
        webhook_secret = "whsec_" + b64encode(secrets.token_bytes(32)).decode()
        unscripted = (f"DEMO-{number:05d}" for number in range(len(_FOLLOWED) + 1, orders + 1))
        order_nos = [*_FOLLOWED[:orders], *unscripted]
        printer = EventPrinter(console, followed=_FOLLOWED)
        shop = Downstream(secret=webhook_secret, on_event=printer.show)
        crm = Downstream(secret=webhook_secret)
        deployment = DemoDeployment(
            folder=folder,
            shop_url=shop.url,
            crm_url=crm.url,
            webhook_secret=webhook_secret,
            required_trust=required_trust,
        )
        with deployment:
            # The processes come first: they are forked while this one has no other threads.
            deployment.start(with_console=not ends)
            if not ends:
                console.print(f"\nWatch it live.\n{_sign_in(deployment)}\n", highlight=False, soft_wrap=True)
            with shop, crm:
                run = DemoRun(deployment=deployment, downstream=shop, console=console)
                report = run.perform(order_nos, started=started)
                _print_report(report, report_path, console, required_trust)
                if not ends:
                    printer.show_all()
                    # What a person would be called for, to be tried at the console.
                    crm.fail()
                    stuck = {f"DEMO-{orders + number:05d}-stuck": yuan for number, yuan in enumerate(_STUCK_YUAN, 1)}
                    run.send_more(stuck)
                    _offer(deployment, console, required_trust, stuck)
                    _keep_running(deployment, shop, console)
    if not report.good:
        sys.exit(1)


def _sign_in(deployment: DemoDeployment) -> str:
    tokens = "\n".join(f"  {person:<12} {token}" for person, token in deployment.tokens.items())
    return f"""\
The operators' console 控制台: [bold]{deployment.console_url}[/]
Sign in with the token of one of two people:
{tokens}"""


def _print_report(report: DemoReport, path: Path | None, console: Console, required_trust: str) -> None:
    console.print(draw_table(report))
    if report.good:
        console.print(
            "[green]Every order has the gateway's status and one terminal event. No false callback was believed.[/]"
        )
    elif required_trust == "query":
        console.print("[bold red]The service has failed: see the red figures.[/]")
    else:
        console.print(f"[bold red]The red figures are the price of `{required_trust}`; `query` has none.[/]")
    if path is not None:
        try:
            path.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"the report cannot be written: {error}") from error


def _offer(deployment: DemoDeployment, console: Console, required_trust: str, stuck: Mapping[str, int]) -> None:
    """Print what there is to try. `stuck`: the orders that wait for a person, with their amounts in yuan."""
    orders = " and ".join(f"{order_no} ({yuan} yuan)" for order_no, yuan in stuck.items())
    not_charged, charged = stuck
    console.print(
        f"""
Still up, until Ctrl-C:
  the sandbox gateway   {deployment.sandbox_url}  (its help page; /admin/orders, /admin/report)
  the receiver          {deployment.receiver_url}/notify/demo/TOKEN
  settings, data, logs  {deployment.folder}
Every other command works with these settings, for example:
  payment-callbacks --config {deployment.settings_path} orders show {MERCHANT} {_FOLLOWED[0]}
Forge a callback yourself, with a correct sign; {_FORGERY_ANSWERS[required_trust]}:
  {_forgery(deployment)}
From now on, every event that the shop hears is printed here.

{_sign_in(deployment)}
Three things to try there:
  1. {orders} are not final. Find out why, and settle \
them. Today lists them within a minute.
     The bank's statement has a charge for {charged}, and none for {not_charged}.
     It takes both people above {SECOND_PERSON_ABOVE} yuan, for an unknown amount, for `succeeded`, and to \
change a final status.
  2. One endpoint fails: find out which one, why and since when, and pause it.
  3. The {SHOP} has lost its last hour: deliver it again.
""",
        highlight=False,
        soft_wrap=True,
    )


def _keep_running(deployment: DemoDeployment, shop: Downstream, console: Console) -> None:
    """Print how many events the shop hears again, a line for each replay, until Ctrl-C."""
    printed = repeated = shop.repeated
    changed_at = time.monotonic()
    try:
        while True:
            deployment.check()
            time.sleep(0.5)
            if repeated != shop.repeated:
                repeated, changed_at = shop.repeated, time.monotonic()
            elif repeated > printed and time.monotonic() - changed_at > _PAUSE_SECONDS:
                count = repeated - printed
                console.print(f"  {SHOP} heard {count} event{'s' if count > 1 else ''} again", highlight=False)
                printed = repeated
    except KeyboardInterrupt:
        console.print("Ending.")


def _forgery(deployment: DemoDeployment) -> str:
    """A command that sends a forged callback: the first order has failed."""
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
    return f"curl -H 'Content-Type: application/json' -d '{body}' {deployment.receiver_url}/notify/{MERCHANT}"


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="payment-callbacks-demo-") as name:
        yield Path(name)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Make SIGTERM run every `finally`, so that no process and no folder is left behind, and SIGINT as well.

    What a shell starts in the background ignores SIGINT otherwise.
    """

    def leave(_number: int, _frame: object) -> NoReturn:
        sys.exit(128 + signal.SIGTERM)

    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, leave),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
