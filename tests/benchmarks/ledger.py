"""The ledger process from a full queue, a consumer of one message at a time, and what the database can take."""

import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path

from rich.console import Console

from tests.benchmarks import queues
from tests.benchmarks.callbacks import without_proxies
from tests.benchmarks.database import Database
from tests.benchmarks.installation import Installation, all_running
from tests.benchmarks.measuring import Figures, Findings, Rate, Ratio, measure_rate, ratios_of, take_turns
from tests.benchmarks.peer_processes import peer_command, peer_process
from tests.benchmarks.sizes import Sizes
from tests.support.postgresql import PostgreSQL
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually

OURS = "payment-callbacks"
ONE_BY_ONE = "one transaction a message"
LIMIT = "plain batches of 500"

# Known before the first turn: the database plans otherwise for tables that it has seen empty.
_KNOWN_ORDERS = 2_000


def measure(sizes: Sizes, console: Console) -> list[Findings]:
    """In turns, each on a database of its own."""
    with tempfile.TemporaryDirectory() as name, RabbitMQ() as broker, PostgreSQL(durable=True) as cluster:
        folder, numbers = Path(name), count()
        ours = OurLedger.make(folder, broker=broker, cluster=cluster, console=console)
        ours.record(_KNOWN_ORDERS, prefix="known")
        ours.database.analyze()

        def measure_ours() -> Figures:
            number = next(numbers)
            turn = ours.on(ours.database.copy(f"turn_{number}"), folder / f"turn-{number}")
            rate = turn.record(sizes.claims, prefix="turn")
            turn.database.drop()
            return _figures(rate)

        figures = take_turns(
            {
                OURS: measure_ours,
                ONE_BY_ONE: lambda: _figures(
                    record_one_by_one(broker, cluster, folder, sizes.claims_one_by_one, console=console)[1]
                ),
                LIMIT: lambda: _measure_limit(cluster, sizes.claims_in_plain_batches),
            },
            rounds=sizes.rounds,
            console=console,
        )
    by = partial(ratios_of, figures, "claims/s", ours=OURS)
    return [
        Findings(
            title="The ledger",
            method="One process, from a full quorum queue into durable PostgreSQL. Each claim is the first about its "
            "order and makes an event. The limit has no queue: it writes arrays into three tables and decides nothing.",
            figures=figures,
            ratios=[
                Ratio(name=f"claims/s: ours / {ONE_BY_ONE}", per_round=by(theirs=ONE_BY_ONE), at_least=6, aim=10),
                Ratio(name=f"claims/s: ours / {LIMIT}", per_round=by(theirs=LIMIT), at_least=0.3, aim=0.5),
            ],
        )
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class OurLedger:
    """The service on a broker and a migrated database, and what its receiver publishes there."""

    installation: Installation
    database: Database
    pattern: queues.Pattern
    console: Console

    @classmethod
    def make(
        cls,
        folder: Path,
        *,
        broker: RabbitMQ,
        cluster: PostgreSQL,
        console: Console,
        endpoints: Mapping[str, str] | None = None,
    ) -> "OurLedger":
        """On a new virtual host and a new database. `endpoints` by name: the URLs of webhooks; else one of no use."""
        database = Database(url=cluster.create_database())
        installation = Installation(
            folder / "ours",
            amqp_url=broker.create_virtual_host(),
            database_url=database.url,
            endpoints=endpoints or {"shop": "http://127.0.0.1:9/"},
        )
        installation.run("migrate")
        pattern = queues.take_our_pattern(installation, folder)
        return cls(installation=installation, database=database, pattern=pattern, console=console)

    def on(self, database: Database, folder: Path, *, endpoints: Mapping[str, str] | None = None) -> "OurLedger":
        """The same on another database, and with other endpoints where some are given."""
        installation = self.installation.on(database.url, folder, endpoints=endpoints)
        return replace(self, installation=installation, database=database)

    def fill(self, count: int, *, prefix: str) -> None:
        """Put a callback of each of `count` new orders into the queue, whose numbers begin with `prefix`."""
        order_numbers = [f"{prefix}-{number:08}" for number in range(count)]
        queues.fill(self.installation.environment["AMQP_URL"], self.pattern, order_numbers, console=self.console)

    def record(self, count: int, *, prefix: str, processes: int = 1) -> Rate:
        """Fill the queue and let it be recorded; fail unless each claim is recorded once."""
        self.fill(count, prefix=prefix)
        # Each further process has ports of its own.
        further = [f"further-{number}" for number in range(1, processes)]
        installations = [
            self.installation,
            *(self.installation.on(self.database.url, self.installation.folder / name) for name in further),
        ]
        running = [installation.process("ledger") for installation in installations]
        with all_running(*running):
            rate = measure_rate(
                partial(self.database.count_orders, prefix),
                total=count,
                pids=[process.pid for process in running],
                label="recording",
                console=self.console,
            )
        self.database.check_claims(prefix, total=count)
        amqp_url = self.installation.environment["AMQP_URL"]
        eventually(lambda: queues.count(amqp_url, queues.OURS) == 0)
        return rate


def record_one_by_one(
    broker: RabbitMQ, cluster: PostgreSQL, folder: Path, count: int, *, console: Console
) -> tuple[Database, Rate]:
    """Let a peer record as many; the database then has an event of each in its outbox."""
    amqp_url, database = broker.create_virtual_host(), Database(url=cluster.create_database(), ours=False)
    order_numbers = [f"turn-{number:08}" for number in range(count)]
    queues.fill(amqp_url, queues.make_their_pattern(), order_numbers, console=console)
    process = peer_process(
        ONE_BY_ONE,
        peer_command("python", "one_by_one.py"),
        folder=folder,
        environment={"AMQP_URL": amqp_url, "DATABASE_URL": database.url},
    )
    try:
        process.start()
        process.wait_until(database.has_orders)
        rate = measure_rate(
            partial(database.count_orders, "turn"), total=count, pids=[process.pid], label="recording", console=console
        )
    finally:
        process.kill()
    database.check_claims("turn", total=count)
    return database, rate


def _measure_limit(cluster: PostgreSQL, count: int) -> Figures:
    database = Database(url=cluster.create_database(), ours=False)
    environment = {**without_proxies(), "DATABASE_URL": database.url}
    command = peer_command("python", "peers/plain_batches.py", str(count))
    done = subprocess.run(
        command, cwd=Path(__file__).parent, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{LIMIT}: {done.stderr}"
    recorded, seconds, cpu_seconds = map(float, done.stdout.split())
    database.check_claims("limit", total=int(recorded))
    return _figures(Rate(per_second=recorded / seconds, cpu_ms_each=cpu_seconds * 1000 / recorded))


def _figures(rate: Rate) -> Figures:
    return {"claims/s": rate.per_second, "CPU each, ms": rate.cpu_ms_each}
