"""One run of the demo: send the orders, wait until nothing is under way, and collect what each side knows of them."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import click
import urllib3
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from sqlalchemy import Engine

from service.bootstrap.charging import make_withholder
from service.bootstrap.gateways import make_gateway_clients
from service.bootstrap.ledger import make_ledger_engine, make_store
from service.charging.announce import OrderDraft
from service.charging.bulkhead import Bulkhead
from service.charging.withhold import Payer, Withholder
from service.config.reading import load_settings
from service.config.settings import Settings
from service.demo.deployment import CRM, MERCHANT, PAY_TYPE, SHOP, DemoDeployment
from service.demo.downstream import Downstream
from service.demo.evidence import Evidence, Falsehood, Statement
from service.demo.report import DemoReport, measure
from service.domain.claims import OrderKey, OrderStatus
from service.gateway.errors import CallFailed
from service.ledger.errors import LedgerUnavailable
from service.ledger.inquiries import InquiryState
from service.ledger.orders import OrderFilter
from service.ledger.outbox import Outbox
from service.ledger.store import LedgerStore
from service.ledger.withholds import WithholdOutcome
from service.messaging.sqlite.queue import EmbeddedQueue
from service.sandbox.callback_sender import CallbackReply

#: A made-up person: the ID number is the standard's own example, the card number is nobody's.
_PAYER = Payer(
    name="张三", id_card_number="11010519491231002X", mobile="13800138000", bank_card_number="6222020000000000000"
)
#: How many withholds are under way at once.
_SENDERS = 4
_MAX_ATTEMPTS = 20
_RETRY_SECONDS = 0.25
#: The demo waits this long at most. What is not done by then is reported as missing.
_MAX_SECONDS = 120.0
_POLL_SECONDS = 0.2
_CLOSE_SECONDS = 2.0


class DemoRun:
    """One run on a deployment that is running."""

    def __init__(self, *, deployment: DemoDeployment, downstream: Downstream, console: Console) -> None:
        self._deployment = deployment
        self._downstream = downstream
        self._console = console

    def perform(self, order_nos: Sequence[str], *, started: float) -> DemoReport:
        """Send the orders and measure what came of them; `started` is the monotonic time to count from.

        Raises DeploymentFailed where a role dies, and ClickException where the orders cannot be sent.
        """
        settings = load_settings(self._deployment.settings_path, {})
        with _ledger(settings) as engine, self._progress() as progress:
            sending = progress.add_task("withholds sent", total=len(order_nos), note="")
            watching = progress.add_task("final at the shop", total=len(order_nos), note="")
            drafts = [_draft(order_no, 10 + number % 90) for number, order_no in enumerate(order_nos)]
            outcomes = self._send(settings, engine, drafts, on_sent=lambda: progress.advance(sending))
            self._await_idle(settings, engine, order_nos, progress, watching)
            evidence = self._gather(settings, engine, order_nos)
            return measure(
                evidence,
                self._ask_sandbox("report"),
                unknown=len(order_nos) - outcomes[WithholdOutcome.ACCEPTED],
                repeated=self._downstream.repeated,
                unsigned=self._downstream.unsigned,
                seconds=time.monotonic() - started,
            )

    def send_more(self, amounts: Mapping[str, int]) -> None:
        """Send further orders, by number, with their amounts in yuan. Nothing of them is waited for.

        Raises as `perform` does.
        """
        settings = load_settings(self._deployment.settings_path, {})
        with _ledger(settings) as engine:
            self._send(settings, engine, [_draft(order_no, amount) for order_no, amount in amounts.items()])

    def _send(
        self,
        settings: Settings,
        engine: Engine,
        drafts: Sequence[OrderDraft],
        *,
        on_sent: Callable[[], None] = lambda: None,
    ) -> Counter[WithholdOutcome]:
        """Send the withholds. Counts the outcomes."""
        withholder = make_withholder(settings, engine, Bulkhead(make_gateway_clients(settings), max_calls=_SENDERS))
        try:
            return _send_all(withholder, drafts, on_sent=on_sent)
        except (CallFailed, LedgerUnavailable) as error:
            self._deployment.check()
            raise click.ClickException(f"the withholds cannot be sent: {error}") from error

    def _await_idle(
        self, settings: Settings, engine: Engine, order_nos: Sequence[str], progress: Progress, task: TaskID
    ) -> None:
        """Return once nothing is under way from the sandbox to the endpoints, or the time is up."""
        store = make_store(settings, engine)
        outbox = Outbox(engine=engine)
        deadline = time.monotonic() + _MAX_SECONDS
        with _queue(settings) as queue:
            while time.monotonic() < deadline:
                self._deployment.check()
                sandbox = self._ask_sandbox("report")
                # In the order in which things move, so that nothing slips by between two checks.
                idle = (
                    not sandbox["orders_unsettled"]
                    and not sandbox["callbacks_outstanding"]
                    and not queue.depth().messages
                    and not _any_order_open(store)
                    and not _any_inquiry_open(store, order_nos)
                    and all(outbox.oldest_open_age(endpoint=endpoint) is None for endpoint in (SHOP, CRM))
                )
                progress.update(task, completed=len(order_nos) - self._count_unfinished(order_nos), note=_note(sandbox))
                if idle:
                    return
                time.sleep(_POLL_SECONDS)

    def _count_unfinished(self, order_nos: Sequence[str]) -> int:
        final = {event.biz_order_no for event in self._downstream.events if event.status.terminal}
        return len(set(order_nos) - final)

    def _gather(self, settings: Settings, engine: Engine, order_nos: Sequence[str]) -> Evidence:
        store = make_store(settings, engine)
        return Evidence(
            order_nos=order_nos,
            truths={
                order["biz_order_no"]: Statement.by_gateway(order["pay_status"], order["pay_order_no"])
                for order in self._ask_sandbox("orders")
            },
            events=self._downstream.events,
            histories={order_no: store.order_history(OrderKey(MERCHANT, order_no)) for order_no in order_nos},
            forgeries=self._falsehoods("forgeries"),
            lies=self._falsehoods("lies"),
        )

    def _falsehoods(self, page: str) -> list[Falsehood]:
        return [
            Falsehood(
                biz_order_no=item["biz_order_no"],
                statement=Statement.by_gateway(item["pay_status"], item["pay_order_no"]),
                refused=item["reply"] == CallbackReply.REFUSED,
            )
            for item in self._ask_sandbox(page)
        ]

    def _ask_sandbox(self, page: str) -> Any:
        try:
            return urllib3.request("GET", f"{self._deployment.sandbox_url}/admin/{page}", timeout=10.0).json()
        except urllib3.exceptions.HTTPError as error:
            self._deployment.check()
            raise click.ClickException(f"the sandbox does not answer: {error}") from error

    def _progress(self) -> Progress:
        columns = (TextColumn("{task.description:<18}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        return Progress(*columns, TextColumn("{task.fields[note]}"), console=self._console)


def _draft(biz_order_no: str, yuan: int) -> OrderDraft:
    return OrderDraft(merchant=MERCHANT, biz_order_no=biz_order_no, amount=f"{yuan}.00", pay_type=PAY_TYPE)


def _send_all(
    withholder: Withholder, drafts: Sequence[OrderDraft], *, on_sent: Callable[[], None]
) -> Counter[WithholdOutcome]:
    """Send each order's withhold once, as the merchant's own system would. Counts the outcomes.

    Raises CallFailed where the gateway cannot be reached or refuses, LedgerUnavailable where the ledger stays away.
    """

    def send(draft: OrderDraft) -> WithholdOutcome:
        attempts = 1
        while True:
            try:
                return withholder.withhold(draft, _PAYER, sent_by="demo").withhold.outcome
            except LedgerUnavailable:
                # Several processes write one SQLite file here, and it may be busy for a moment.
                if attempts == _MAX_ATTEMPTS:
                    raise
                attempts += 1
                time.sleep(_RETRY_SECONDS)

    outcomes: Counter[WithholdOutcome] = Counter()
    with ThreadPoolExecutor(_SENDERS, thread_name_prefix="withhold") as pool:
        for outcome in pool.map(send, drafts):
            outcomes[outcome] += 1
            on_sent()
    return outcomes


def _any_order_open(store: LedgerStore) -> bool:
    still_open = (
        OrderFilter(merchant=MERCHANT, status=OrderStatus.INITIAL),
        OrderFilter(merchant=MERCHANT, status=OrderStatus.PROCESSING),
        OrderFilter(merchant=MERCHANT, conflicted=True),
    )
    return any(store.list_orders(chosen, limit=1) for chosen in still_open)


def _any_inquiry_open(store: LedgerStore, order_nos: Sequence[str]) -> bool:
    """Whether an inquiry is due or under way. Its answer may still change an order."""
    histories = (store.order_history(OrderKey(MERCHANT, order_no)) for order_no in order_nos)
    return any(
        history.inquiry is not None and history.inquiry.state in (InquiryState.OPEN, InquiryState.ASKING)
        for history in histories
    )


def _note(sandbox: dict[str, int]) -> str:
    return f"{sandbox['callbacks_sent']} callbacks, {sandbox['forged_sent']} forged ones"


@contextmanager
def _queue(settings: Settings) -> Iterator[EmbeddedQueue]:
    queue = EmbeddedQueue(settings.data_directory / "callbacks.sqlite3")
    try:
        yield queue
    finally:
        queue.close(timeout_seconds=_CLOSE_SECONDS)


@contextmanager
def _ledger(settings: Settings) -> Iterator[Engine]:
    engine = make_ledger_engine(settings, pool_size=_SENDERS)
    try:
        yield engine
    finally:
        engine.dispose()
