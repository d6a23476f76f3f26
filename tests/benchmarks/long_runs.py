"""What shows only with many orders, many callbacks, or much time."""

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from itertools import count
from pathlib import Path

from rich.console import Console

from service.ledger.audit import Author
from service.ledger.database import make_engine
from service.ledger.replays import Replays, ReplayWindow
from service.runtime.clock import now
from tests.benchmarks import queues
from tests.benchmarks.callbacks import CONNECTIONS, MERCHANT, send_at_rate, write_callbacks
from tests.benchmarks.ledger import OurLedger
from tests.benchmarks.measuring import (
    Figures,
    Findings,
    Ratio,
    a_progress,
    percentile,
    ratios_of,
    resident_mebibytes,
    take_turns,
)
from tests.benchmarks.sizes import Sizes
from tests.benchmarks.start import ROLES
from tests.benchmarks.webhook import Webhook, a_webhook
from tests.support.postgresql import PostgreSQL
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually

_MULTIPLIED_TOGETHER = 250_000
_SENT_TOGETHER = 10_000
_MAX_SECONDS_STILL = 300
#: Of the orders whose callbacks fill the memory.
_PREFIX = "memory"


def measure_orders(sizes: Sizes, console: Console) -> list[Findings]:
    """The ledger among few orders and among many, in turns."""
    few_name, many_name = f"{sizes.few_orders:,} orders", f"{sizes.many_orders:,} orders"
    with _installed(console) as (few, webhook, folder):
        # One order with its whole story, of which the others are copies.
        few.record(1, prefix="known")
        with few.installation.running("dispatcher"):
            eventually(lambda: few.database.count_deliveries(endpoint="shop", state="delivered") == 1)
        webhook.check(total=1)
        _multiply(few, to=sizes.few_orders, known=1, console=console)
        many = few.on(few.database.copy("many"), folder / "many")
        _multiply(many, to=sizes.many_orders, known=sizes.few_orders, console=console)
        few.database.analyze()
        many.database.analyze()
        numbers = count()

        def among_few() -> Figures:
            # Else they would be many after some turns.
            number = next(numbers)
            turn = few.on(few.database.copy(f"few_{number}"), folder / f"few-{number}")
            rate = turn.record(sizes.claims, prefix="turn")
            turn.database.drop()
            return {"claims/s": rate.per_second, "CPU each, ms": rate.cpu_ms_each}

        def among_many() -> Figures:
            rate = many.record(sizes.claims, prefix=f"turn{next(numbers)}")
            return {"claims/s": rate.per_second, "CPU each, ms": rate.cpu_ms_each}

        figures = take_turns({few_name: among_few, many_name: among_many}, rounds=sizes.rounds, console=console)
    by = ratios_of(figures, "claims/s", ours=many_name, theirs=few_name)
    return [
        Findings(
            title="The ledger among many orders",
            method='As under "The ledger". The orders that are there before have a claim, an event and a delivery.',
            figures=figures,
            ratios=[Ratio(name=f"claims/s: among {many_name} / {few_name}", per_round=by, at_least=0.9)],
        )
    ]


def measure_second_ledger(sizes: Sizes, console: Console) -> list[Findings]:
    """One ledger process and two, in turns."""
    numbers = count()
    with _installed(console) as (ours, _webhook, _folder):

        def record(processes: int) -> Figures:
            rate = ours.record(sizes.claims, prefix=f"turn{next(numbers)}", processes=processes)
            return {"claims/s": rate.per_second, "CPU each, ms": rate.cpu_ms_each}

        figures = take_turns(
            {"one process": partial(record, 1), "two processes": partial(record, 2)},
            rounds=sizes.rounds,
            console=console,
        )
    by = ratios_of(figures, "claims/s", ours="two processes", theirs="one process")
    return [
        Findings(
            title="A second ledger process",
            method='As under "The ledger", from the same queue into the same database.',
            figures=figures,
            ratios=[Ratio(name="claims/s: two ledger processes / one", per_round=by)],
        )
    ]


def measure_backlog(sizes: Sizes, console: Console) -> list[Findings]:
    """One ledger process behind a long queue, once."""
    with _installed(console) as (ours, _webhook, _folder):
        rate = ours.record(sizes.backlog, prefix="backlog")
    figures = {
        "claims/s": rate.per_second,
        "CPU each, ms": rate.cpu_ms_each,
        "minutes": sizes.backlog / rate.per_second / 60,
    }
    return [
        Findings(
            title="A backlog",
            method=f"{sizes.backlog:,} callbacks in the queue, one ledger process, until each is recorded once.",
            figures={"payment-callbacks": [figures]},
        )
    ]


def measure_memory(sizes: Sizes, console: Console) -> list[Findings]:
    """Every role, after the first callbacks and after ten times as many, once all events are delivered."""
    resident: dict[str, dict[str, float]] = {role: {} for role in ROLES}
    with _installed(console) as (ours, webhook, folder), ours.installation.running(*ROLES) as processes:
        acknowledged = sent = 0
        for target in (sizes.first_callbacks, sizes.all_callbacks):
            while sent < target:
                chunk = min(_SENT_TOGETHER, target - sent)
                acknowledged += _send(ours, folder, first=sent, total=chunk)
                sent += chunk
                console.print(f"{sent:,} of {sizes.all_callbacks:,} callbacks sent", highlight=False)
            _await_events(ours, webhook, acknowledged=acknowledged, sent=sent, console=console)
            for role, process in zip(ROLES, processes, strict=True):
                resident[role][f"after {target:,}, MiB"] = resident_mebibytes(process.pid)
    columns = [f"after {target:,}, MiB" for target in (sizes.first_callbacks, sizes.all_callbacks)]
    return [
        Findings(
            title="Memory over many callbacks",
            method="The resident sets of each role's processes, added up, once every callback is recorded and every "
            "event delivered; each callback is the first about its order.",
            figures={role: [figures] for role, figures in resident.items()},
            ratios=[
                Ratio(
                    name=f"resident memory of {role}: {sizes.all_callbacks:,} callbacks / {sizes.first_callbacks:,}",
                    per_round=[figures[columns[1]] / figures[columns[0]]],
                    at_most=1.05,
                )
                for role, figures in resident.items()
            ],
        )
    ]


def measure_latency(sizes: Sizes, console: Console) -> list[Findings]:
    """From when a callback is due at the receiver to when its event comes in downstream; also beside a replay."""
    numbers = count()
    began = now()
    replayed = 0
    alone, beside = "payment-callbacks", "payment-callbacks, a replay beside"
    with (
        _installed(console) as (ours, webhook, folder),
        ours.installation.running("receiver", "ledger", "dispatcher"),
    ):

        def one_turn(seconds: float) -> Figures:
            total = round(sizes.callbacks_per_second * seconds)
            callbacks = write_callbacks(folder / "latency.txt", total, prefix=f"turn{next(numbers)}")
            before = webhook.count()
            sent = send_at_rate(ours.installation.url, callbacks, per_second=sizes.callbacks_per_second, count=total)
            assert sent.refused == 0, f"{sent.refused} of {total} callbacks were refused"
            eventually(lambda: webhook.count() == before + total, within_seconds=120)
            came_at = webhook.first_at()
            latencies = [
                (came_at[f"{MERCHANT}/{order}/1"] - sent.began_at - number / sizes.callbacks_per_second) * 1000
                for number, order in enumerate(callbacks.order_numbers)
            ]
            return {
                **{f"p{percent}, ms": percentile(latencies, percent) for percent in (50, 90, 99)},
                "longest, ms": max(latencies),
                "load average": os.getloadavg()[0],
            }

        def one_turn_beside_a_replay(seconds: float) -> Figures:
            nonlocal replayed
            with _a_replay(ours.database.url, since=began) as count_replayed:
                figures = one_turn(seconds)
                done = count_replayed()
            assert done, "nothing was replayed"
            replayed += done
            return figures

        one_turn(min(5, sizes.latency_seconds))
        figures = take_turns(
            {
                alone: partial(one_turn, sizes.latency_seconds),
                beside: partial(one_turn_beside_a_replay, sizes.latency_seconds),
            },
            rounds=sizes.rounds,
            console=console,
        )
        webhook.check(total=webhook.count(), max_repeated=replayed)
    turns = figures[alone]
    at = f"{sizes.callbacks_per_second}/s"
    return [
        Findings(
            title="From callback to event",
            method=f"{at}, one process of each role, default settings: from when a callback was due at the receiver "
            "until its event came in at the webhook. A replay delivers earlier events to the same webhook.",
            figures=figures,
            ratios=[
                Ratio(
                    name=f"callback to event at {at}, median, ms", per_round=[turn["p50, ms"] for turn in turns], aim=25
                ),
                Ratio(
                    name=f"callback to event at {at}, p99, ms", per_round=[turn["p99, ms"] for turn in turns], aim=100
                ),
                Ratio(
                    name="callback to event, p99: beside a replay / alone",
                    per_round=ratios_of(figures, "p99, ms", ours=beside, theirs=alone),
                ),
            ],
        )
    ]


@contextmanager
def _installed(console: Console) -> Iterator[tuple[OurLedger, Webhook, Path]]:
    """The service with one webhook that answers at once."""
    with tempfile.TemporaryDirectory() as name, RabbitMQ() as broker, PostgreSQL(durable=True) as cluster:
        folder = Path(name)
        with a_webhook(folder) as webhook:
            yield (
                OurLedger.make(
                    folder, broker=broker, cluster=cluster, console=console, endpoints={"shop": webhook.url}
                ),
                webhook,
                folder,
            )


@contextmanager
def _a_replay(database_url: str, *, since: datetime) -> Iterator[Callable[[], int]]:
    """Replays what was made from then to now, at the default rate; yields a function that counts the events so far."""
    author = Author(name="benchmark", reason="to measure what it costs new events")
    engine = make_engine(database_url)
    replays = Replays(engine=engine)
    window = ReplayWindow(endpoint="shop", since=since, until=now())
    made = replays.request(window, expected=replays.count(window), author=author)

    def count_replayed() -> int:
        found = replays.load(made.id)
        assert found is not None
        return found.done

    try:
        yield count_replayed
        replays.stop(made.id, author=author)
    finally:
        engine.dispose()


def _multiply(ours: OurLedger, *, to: int, known: int, console: Console) -> None:
    with a_progress(console) as progress:
        for first in progress.track(range(known, to, _MULTIPLIED_TOGETHER), description="making orders"):
            ours.database.multiply(
                "known-00000000", prefix="known", first=first, count=min(_MULTIPLIED_TOGETHER, to - first)
            )


def _send(ours: OurLedger, folder: Path, *, first: int, total: int) -> int:
    """Send callbacks of so many new orders, each as soon as one is answered. How many were acknowledged."""
    callbacks = write_callbacks(folder / "callbacks.txt", total, prefix=_PREFIX, first=first)
    sent = send_at_rate(ours.installation.url, callbacks, per_second=math.inf, count=total, connections=CONNECTIONS)
    assert sent.refused <= total / 100, f"{sent.refused} of {total} callbacks were refused"
    return sent.acknowledged


def _await_events(ours: OurLedger, webhook: Webhook, *, acknowledged: int, sent: int, console: Console) -> None:
    """Wait until what was acknowledged is recorded and delivered, each once."""
    with a_progress(console) as progress:
        bar = progress.add_task("delivering", total=acknowledged)
        moved_at, before = time.monotonic(), -1
        while (delivered := webhook.count()) < acknowledged:
            if delivered > before:
                moved_at, before = time.monotonic(), delivered
            assert time.monotonic() - moved_at < _MAX_SECONDS_STILL, f"stands still at {delivered} of {acknowledged}"
            progress.update(bar, completed=delivered)
            time.sleep(1)

    def settled() -> bool:
        waiting = queues.count(ours.installation.environment["AMQP_URL"], queues.OURS)
        return waiting == 0 and ours.database.count_deliveries(endpoint="shop", state="open") == 0

    eventually(settled, within_seconds=60)
    # Callbacks that were refused may have come in all the same: nobody has promised that they do not.
    total = webhook.count()
    assert acknowledged <= total <= sent, f"{acknowledged} of {sent} callbacks were acknowledged, {total} events came"
    webhook.check(total=total)
    ours.database.check_claims(_PREFIX, total=total)
