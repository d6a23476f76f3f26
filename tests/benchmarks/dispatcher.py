"""The dispatcher process from a full outbox, and a loop of one thread."""

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path

from rich.console import Console

from tests.benchmarks.database import Database
from tests.benchmarks.installation import all_running
from tests.benchmarks.ledger import OurLedger, record_one_by_one
from tests.benchmarks.measuring import Figures, Findings, Ratio, measure_rate, ratios_of, take_turns
from tests.benchmarks.peer_processes import peer_command, peer_process
from tests.benchmarks.sizes import Sizes
from tests.benchmarks.webhook import a_webhook
from tests.support.postgresql import PostgreSQL
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually

OURS = "payment-callbacks"
BESIDE_DEAD = "payment-callbacks, a dead endpoint beside"
ONE_THREAD = "one thread"
_SLOW = ", answered after 20 ms"
_SLOW_SECONDS = "0.02"


def measure(sizes: Sizes, console: Console) -> list[Findings]:
    """In turns, each with a full outbox and a webhook of its own."""
    with tempfile.TemporaryDirectory() as name, RabbitMQ() as broker, PostgreSQL(durable=True) as cluster:
        bench = _Bench(folder=Path(name), broker=broker, cluster=cluster, console=console)
        ours, theirs = partial(bench.measure_ours, sizes.events), partial(bench.measure_theirs, sizes.events_one_by_one)
        contestants = {OURS: ours, BESIDE_DEAD: partial(ours, dead=True), ONE_THREAD: theirs}
        if sizes.slow_webhook:
            contestants[OURS + _SLOW] = partial(bench.measure_ours, sizes.events_slow, pause=_SLOW_SECONDS)
            contestants[ONE_THREAD + _SLOW] = partial(
                bench.measure_theirs, sizes.events_one_by_one_slow, pause=_SLOW_SECONDS
            )
        figures = take_turns(contestants, rounds=sizes.rounds, console=console)
    by = partial(ratios_of, figures, "events/s")
    ratios = [
        Ratio(name=f"events/s: ours / {ONE_THREAD}", per_round=by(ours=OURS, theirs=ONE_THREAD), at_least=3, aim=6),
        Ratio(
            name="events/s: ours with a dead endpoint beside / without",
            per_round=by(ours=BESIDE_DEAD, theirs=OURS),
            at_least=0.95,
        ),
    ]
    if sizes.slow_webhook:
        slow = by(ours=OURS + _SLOW, theirs=ONE_THREAD + _SLOW)
        ratios.append(Ratio(name=f"events/s: ours / {ONE_THREAD}, both{_SLOW}", per_round=slow))
    return [
        Findings(
            title="The dispatcher",
            method="One process with default settings, from a full outbox on durable PostgreSQL to one webhook, which "
            "answers at once where nothing else is said. The dead endpoint takes connections and never answers; it is "
            "sent the same events.",
            figures=figures,
            ratios=ratios,
        )
    ]


class _Bench:
    """Fills outboxes and empties them."""

    def __init__(self, *, folder: Path, broker: RabbitMQ, cluster: PostgreSQL, console: Console) -> None:
        self._folder = folder
        self._broker = broker
        self._cluster = cluster
        self._console = console
        self._numbers = count()
        self._ours = OurLedger.make(folder, broker=broker, cluster=cluster, console=console)
        self._broker, self._cluster = broker, cluster
        # Outboxes that were filled, by whose they are, and how many events and endpoints they have. Each turn empties
        # a copy.
        self._full: dict[tuple[str, int, int], Database] = {}

    def measure_ours(self, events: int, *, pause: str = "0", dead: bool = False) -> Figures:
        folder = self._new_folder()
        with ExitStack() as running:
            shop = running.enter_context(a_webhook(folder, pause=pause))
            endpoints = {"shop": shop.url}
            if dead:
                endpoints["dead"] = running.enter_context(a_webhook(folder, pause="hang")).url
            full = self._full.get((OURS, events, len(endpoints))) or self._fill_ours(events, endpoints)
            turn = self._ours.on(full.copy(folder.name), folder, endpoints=endpoints)
            process = turn.installation.process("dispatcher")
            with all_running(process):
                rate = measure_rate(
                    shop.count, total=events, pids=[process.pid], label="delivering", console=self._console
                )
                eventually(lambda: turn.database.count_deliveries(endpoint="shop", state="delivered") == events)
            shop.check(total=events)
            turn.database.drop()
        return {"events/s": rate.per_second, "CPU each, ms": rate.cpu_ms_each}

    def measure_theirs(self, events: int, *, pause: str = "0") -> Figures:
        folder = self._new_folder()
        full = self._full.get((ONE_THREAD, events, 1)) or self._fill_theirs(events)
        database = full.copy(folder.name)
        with a_webhook(folder, pause=pause) as shop:
            process = peer_process(
                ONE_THREAD,
                peer_command("python", "outbox_loop.py", shop.url),
                folder=folder,
                environment={"DATABASE_URL": database.url},
            )
            with all_running(process):
                rate = measure_rate(
                    shop.count, total=events, pids=[process.pid], label="delivering", console=self._console
                )
            shop.check(total=events)
        database.drop()
        return {"events/s": rate.per_second, "CPU each, ms": rate.cpu_ms_each}

    def _fill_ours(self, events: int, endpoints: Mapping[str, str]) -> Database:
        folder = self._new_folder()
        filled = self._ours.on(self._ours.database.copy(folder.name), folder, endpoints=endpoints)
        filled.record(events, prefix="event")
        filled.database.analyze()
        self._full[OURS, events, len(endpoints)] = filled.database
        return filled.database

    def _fill_theirs(self, events: int) -> Database:
        folder = self._new_folder()
        database, _ = record_one_by_one(self._broker, self._cluster, folder, events, console=self._console)
        self._full[ONE_THREAD, events, 1] = database
        return database

    def _new_folder(self) -> Path:
        folder = self._folder / f"turn_{next(self._numbers)}"
        folder.mkdir()
        return folder
