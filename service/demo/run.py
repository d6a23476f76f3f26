"""The demo's orders: sent, watched until nothing is under way any more, and looked at from all three sides."""

import time
from collections.abc import Iterator, Sequence
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
from service.config.reading import load_settings
from service.config.settings import Settings
from service.demo.downstream import Downstream
from service.demo.driver import SENDERS, Driver
from service.demo.evidence import Evidence, Falsehood, Said
from service.demo.report import DemoReport, measure
from service.demo.stage import ENDPOINT, MERCHANT, Stage
from service.domain.claims import OrderKey, OrderStatus
from service.gateway.errors import CallFailed
from service.ledger.errors import LedgerUnavailable
from service.ledger.inquiries import InquiryState
from service.ledger.orders import OrderFilter
from service.ledger.outbox import Outbox
from service.ledger.schema import migrate
from service.ledger.store import LedgerStore
from service.ledger.withholds import WithholdOutcome
from service.messaging.sqlite.queue import EmbeddedQueue
from service.sandbox.callback_sender import CallbackReply

#: What is not done by then is reported as it is: missing.
_MOST_SECONDS = 120.0
_LOOK_SECONDS = 0.2
_CLOSE_SECONDS = 2.0


class DemoRun:
    """One run on a stage that is up."""

    def __init__(self, *, stage: Stage, downstream: Downstream, console: Console) -> None:
        self._stage = stage
        self._downstream = downstream
        self._console = console

    def perform(self, order_nos: Sequence[str], *, started: float) -> DemoReport:
        """Send the orders and measure what came of them; `started` is the monotonic time to count from.

        Raises StageBroken where a role dies, and ClickException where the orders cannot be sent.
        """
        settings = load_settings(self._stage.settings_path, {})
        with _ledger(settings) as engine, self._progress() as progress:
            migrate(engine)
            sending = progress.add_task("withholds sent", total=len(order_nos), note="")
            watching = progress.add_task("final at the shop", total=len(order_nos), note="")
            outcomes = self._send(settings, engine, order_nos, progress, sending)
            self._watch(settings, engine, order_nos, progress, watching)
            evidence = self._gather(settings, engine, order_nos)
            return measure(
                evidence,
                self._ask_sandbox("report"),
                unknown=outcomes,
                repeated=self._downstream.repeated,
                unsigned=self._downstream.unsigned,
                seconds=time.monotonic() - started,
            )

    def _send(
        self, settings: Settings, engine: Engine, order_nos: Sequence[str], progress: Progress, task: TaskID
    ) -> int:
        """Of how many withholds the outcome was unknown."""
        driver = Driver(withholder=make_withholder(settings, engine, make_gateway_clients(settings).usable))
        try:
            outcomes = driver.send(order_nos, on_sent=lambda: progress.advance(task))
            return len(order_nos) - outcomes[WithholdOutcome.ACCEPTED]
        except (CallFailed, LedgerUnavailable) as error:
            self._stage.check()
            raise click.ClickException(f"the withholds cannot be sent: {error}") from error

    def _watch(
        self, settings: Settings, engine: Engine, order_nos: Sequence[str], progress: Progress, task: TaskID
    ) -> None:
        """Return once nothing is under way from the sandbox to the shop, or the time is up."""
        store = make_store(settings, engine)
        outbox = Outbox(engine=engine)
        deadline = time.monotonic() + _MOST_SECONDS
        with _queue(settings) as queue:
            while time.monotonic() < deadline:
                self._stage.check()
                sandbox = self._ask_sandbox("report")
                # In the order in which things move, so that nothing slips by between two looks.
                idle = (
                    not sandbox["orders_unsettled"]
                    and not sandbox["callbacks_outstanding"]
                    and not queue.depth().messages
                    and not _any_order_open(store)
                    and not _anything_to_ask(store, order_nos)
                    and outbox.oldest_open_age(endpoint=ENDPOINT) is None
                )
                progress.update(task, completed=len(order_nos) - self._unheard(order_nos), note=_note(sandbox))
                if idle:
                    return
                time.sleep(_LOOK_SECONDS)

    def _unheard(self, order_nos: Sequence[str]) -> int:
        final = {event.biz_order_no for event in self._downstream.events if event.status.terminal}
        return len(set(order_nos) - final)

    def _gather(self, settings: Settings, engine: Engine, order_nos: Sequence[str]) -> Evidence:
        store = make_store(settings, engine)
        return Evidence(
            order_nos=order_nos,
            truths={
                order["biz_order_no"]: Said.by_gateway(order["pay_status"], order["pay_order_no"])
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
                biz_order_no=told["biz_order_no"],
                said=Said.by_gateway(told["pay_status"], told["pay_order_no"]),
                refused=told["reply"] == CallbackReply.REFUSED,
            )
            for told in self._ask_sandbox(page)
        ]

    def _ask_sandbox(self, page: str) -> Any:
        try:
            return urllib3.request("GET", f"{self._stage.sandbox_url}/admin/{page}", timeout=10.0).json()
        except urllib3.exceptions.HTTPError as error:
            self._stage.check()
            raise click.ClickException(f"the sandbox does not answer: {error}") from error

    def _progress(self) -> Progress:
        columns = (TextColumn("{task.description:<18}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        return Progress(*columns, TextColumn("{task.fields[note]}"), console=self._console)


def _any_order_open(store: LedgerStore) -> bool:
    still_open = (
        OrderFilter(merchant=MERCHANT, status=OrderStatus.INITIAL),
        OrderFilter(merchant=MERCHANT, status=OrderStatus.PROCESSING),
        OrderFilter(merchant=MERCHANT, conflicted=True),
    )
    return any(store.list_orders(chosen, limit=1) for chosen in still_open)


def _anything_to_ask(store: LedgerStore, order_nos: Sequence[str]) -> bool:
    """Whether a question is due or under way, about whatever order: its answer might yet change something."""
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
    engine = make_ledger_engine(settings, pool_size=SENDERS)
    try:
        yield engine
    finally:
        engine.dispose()
