"""The service as an operator runs it: one settings file, and a process of the real command line for each role.

At the end: whether all that it acknowledged was recorded and delivered, once and in order.
"""

import json
import os
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import select, update

from service.bootstrap.ledger import make_ledger_engine, make_migration_engine, make_store
from service.bootstrap.messaging import make_message_counter
from service.config.reading import load_settings
from service.config.settings import ApiScope, Settings
from service.ledger.announcements import Announcement
from service.ledger.attention import SILENT_AFTER
from service.ledger.schema import migrate
from service.ledger.tables import depth_reports
from service.messaging.blocking_publisher import BlockingPublisher
from service.messaging.interface import Message
from service.messaging.sqlite.queue import EmbeddedQueue
from tests.support.api import TOKEN
from tests.support.callbacks import Callback, GatewaySender, mint_token
from tests.support.downstream import WEBHOOK_SECRET, Downstream, ReceivedEvent
from tests.support.ledger import ClaimKey, LedgerView, make_sqlite_ledger
from tests.support.messages import embedded_publisher, rabbit_publisher
from tests.support.processes import Process, Processes, answers, children_of, find_free_port, run_module
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

ROLES = ("receiver", "ledger", "dispatcher")

_TOKEN_KEYS = {
    merchant: f"the token key of {merchant}, for tests only" for merchant in ("acme", "other", "open", "ask")
}

# Shorter times than an operator would set, so that what comes by itself comes while the test waits.
_SETTINGS = """\
data_directory = "data"

[receiver]
bind = "127.0.0.1:{port}"

[ledger]
initial_retry_seconds = 0.1
max_retry_seconds = 1.0

[dispatcher]
poll_seconds = 0.1
lease_seconds = 4.0

[spool]
enabled = {spool}

[merchants.acme]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
required_trust = "capability"
token_keys = [{{ kid = "k1", key = "{keys[acme]}" }}]

[merchants.other]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
required_trust = "capability"
token_keys = [{{ kid = "k1", key = "{keys[other]}" }}]

[merchants.open]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
required_trust = "checksum"
token_keys = [{{ kid = "k1", key = "{keys[open]}" }}]

[merchants.ask]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
token_keys = [{{ kid = "k1", key = "{keys[ask]}" }}]
gateway = {{ url = "http://127.0.0.1:9/", ua = "ASK", aes_key = "0123456789abcdef", timeout_seconds = 2.0 }}
"""
_POOLER = """
[database]
pooled = true
migrate_url = { env = "MIGRATE_URL" }
"""
_WEBHOOK = """
[[endpoints]]
name = "{name}"
kind = "webhook"
url = "{url}"
secrets = ["{secret}"]
timeout_seconds = 2.0
initial_retry_seconds = 0.1
max_retry_seconds = 0.5
max_attempts = 1000
"""
_BUS = """
[[endpoints]]
name = "bus"
kind = "amqp"
timeout_seconds = 2.0
initial_retry_seconds = 0.1
max_retry_seconds = 0.5
max_attempts = 1000
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a deployment lives on; nothing named means the embedded default."""

    amqp_url: str = ""
    database_url: str = ""
    #: The way to the same database through a pooler, which the roles then take.
    pooler_url: str = ""


class Deployment:
    """One installation; `start` brings roles up, leaving the context ends them all."""

    def __init__(
        self,
        *,
        folder: Path,
        place: Place,
        downstreams: Mapping[str, Downstream],
        spool: bool = False,
        more_settings: str = "",
    ) -> None:
        """`downstreams` by endpoint name; on a broker there is the endpoint `bus` as well.

        `more_settings` are further tables of the settings file, in TOML.
        """
        self.place = place
        self.settings_file = folder / "payment-callbacks.toml"
        self._port = find_free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._queue_file = folder / "data" / "callbacks.sqlite3"
        self._environment = {
            name: value
            for name, value in {
                "AMQP_URL": place.amqp_url,
                "DATABASE_URL": place.pooler_url or place.database_url,
                "MIGRATE_URL": place.database_url if place.pooler_url else "",
            }.items()
            if value
        }
        text = _SETTINGS.format(port=self._port, spool=json.dumps(spool), keys=_TOKEN_KEYS) + more_settings
        if place.pooler_url:
            text += _POOLER
        for name, downstream in downstreams.items():
            text += _WEBHOOK.format(name=name, url=downstream.url, secret=WEBHOOK_SECRET)
        self.settings_file.write_text(text + (_BUS if place.amqp_url else ""))
        self._processes = Processes(folder=folder)
        self._roles: dict[str, Process] = {}
        self._ledger_file = folder / "data" / "ledger.sqlite3"
        self.ledger = LedgerView(url=place.database_url or f"sqlite:///{self._ledger_file}")
        self.sender = GatewaySender(url=self.url)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._processes.kill_all()
        self.sender.close()
        self.ledger.close()

    @property
    def output(self) -> str:
        """All that its processes have written so far."""
        return "".join(process.output for process in self._roles.values())

    def describe(self) -> str:
        """What its processes wrote last, for the report of a failed test."""
        return self._processes.describe()

    def prepare(self) -> None:
        """Bring the database to this release's schema, as the command `migrate` does."""
        if not self.place.database_url:
            make_sqlite_ledger(self._ledger_file)
            return
        engine = make_migration_engine(self._settings())
        migrate(engine)
        engine.dispose()

    def announce(self, announcements: Iterable[Announcement]) -> None:
        """Announce orders, as the API does for whoever is about to send them."""
        settings = self._settings()
        engine = make_ledger_engine(settings)
        store = make_store(settings, engine)
        for announcement in announcements:
            store.announce(announcement)
        engine.dispose()

    def age_depths(self) -> None:
        """Make the latest reports of the queue and the spools so old that their reporters count as silent."""
        engine = make_ledger_engine(self._settings())
        with engine.begin() as connection:
            for reporter, reported_at in connection.execute(
                select(depth_reports.c.reporter, depth_reports.c.reported_at)
            ).all():
                own = depth_reports.c.reporter == reporter
                connection.execute(update(depth_reports).where(own).values(reported_at=reported_at - SILENT_AFTER))
        engine.dispose()

    def start(
        self,
        *roles: str,
        environment: Mapping[str, str] | None = None,
        output: int | None = None,
        module: str = "service.cli",
    ) -> None:
        """Start roles (`all` is one), for the first time or again; returns at once.

        A further process of a role is asked for by a name of its own: `ledger-2`. `environment`, `output`, a descriptor
        to write to in place of a file, and `module`, which is run as the command line, are those of the first start.
        With an `environment` it is a Python of its own, which reads it before anything is imported.
        """
        for name in roles:
            if name in self._roles:
                self._roles[name].start()
                continue
            start = self._processes.start_module
            if environment is not None:
                start = partial(self._processes.start_command, sys.executable, "-m")
            self._roles[name] = start(
                module,
                *("--config", self.settings_file, "run", name.partition("-")[0]),
                environment={**self._environment, **(environment or {})},
                name=name,
                output=output,
            )

    def wait_until_receiving(self, role: str = "receiver", *, path: str = "/readyz") -> None:
        """Wait until the receiver, which `role` runs, answers."""
        self._roles[role].wait_until(lambda: answers(self.url + path))

    def role(self, name: str) -> Process:
        """The process of a role that was started."""
        return self._roles[name]

    def kill(self, role: str) -> None:
        """SIGKILL to the role's process and all its children."""
        self._roles[role].kill()

    def give_api(self, *, workers: int = 2) -> str:
        """Let "shop" call the API in every way; says where. Before the role is started."""
        port, scopes = find_free_port(), json.dumps([scope.value for scope in ApiScope])
        with self.settings_file.open("a") as settings:
            settings.write(f'\n[api]\nbind = "127.0.0.1:{port}"\nworkers = {workers}\n')
            settings.write(f'[[api.tokens]]\nname = "shop"\ntoken = "{TOKEN}"\nscopes = {scopes}\n')
        return f"http://127.0.0.1:{port}"

    def kill_master(self) -> None:
        """SIGKILL to the receiver's master alone, which leaves its workers orphans."""
        master = self._roles["receiver"]
        master.signal(signal.SIGKILL)
        master.wait()

    def start_receiver_again(self) -> None:
        """Start the receiver after its master was killed, and wait until it has workers of its own.

        That it answers would not show it: the old workers do until they notice that they are orphans.
        """
        self.start("receiver")
        self._roles["receiver"].wait_until(lambda: self.children("receiver") and answers(self.url + "/readyz"))

    def kill_worker(self) -> None:
        """SIGKILL to one of the receiver's workers."""
        os.kill(self.children("receiver")[0], signal.SIGKILL)

    def children(self, role: str) -> list[int]:
        """The process ids of the role's children."""
        return children_of(self._roles[role].pid)

    def command_line(self, *arguments: str) -> list[str]:
        """The words of a command on this deployment's settings, for who starts it in a way of their own."""
        return [sys.executable, "-m", "service.cli", "--config", str(self.settings_file), *arguments]

    def command(
        self, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command that ends by itself, on this deployment's settings.

        With an `environment` it is a Python of its own, as in `start`.
        """
        if environment is None:
            options = ("--config", str(self.settings_file))
            return run_module("service.cli", *options, *arguments, environment={**os.environ, **self._environment})
        return subprocess.run(
            self.command_line(*arguments),
            env={**os.environ, **self._environment, **environment},
            capture_output=True,
            text=True,
            timeout=HANGS_AFTER_SECONDS,
            check=False,
        )

    def count_messages(self, queue: str) -> int:
        """How many messages wait in the queue `ledger` or `dead`; on a broker, without those that a consumer holds."""
        return self._count_messages()[queue]

    def assert_no_dead_letters(self) -> None:
        """Neither the queue has any, nor the ledger, which knows of those that its role is looking at."""
        assert self.count_messages("dead") == 0
        done = self.command("dead", "list")
        assert (done.returncode, done.stdout) == (0, ""), done.stderr

    def publish(self, message: Message) -> None:
        """Put any message at all into the queue, past the receiver."""
        publisher: BlockingPublisher = (
            rabbit_publisher(self.place.amqp_url, connection_name="test")
            if self.place.amqp_url
            else embedded_publisher(EmbeddedQueue(path=self._queue_file))
        )
        try:
            publisher.publish(message, timeout_seconds=HANGS_AFTER_SECONDS)
        finally:
            publisher.close(timeout_seconds=5)

    @cached_property
    def _count_messages(self) -> Callable[[], Mapping[str, int]]:
        return make_message_counter(self._settings())

    def _settings(self) -> Settings:
        return load_settings(self.settings_file, self._environment)

    def callback(self, biz_order_no: str, *, merchant: str = "acme", **more: Any) -> Callback:
        """A callback on the address that was minted for its order."""
        return Callback(
            biz_order_no=biz_order_no,
            merchant=merchant,
            token=token_of(merchant, biz_order_no),
            **more,
        )


def token_of(merchant: str, biz_order_no: str) -> str:
    """The token of an order."""
    return mint_token(kid="k1", key=_TOKEN_KEYS[merchant], merchant=merchant, biz_order_no=biz_order_no)


#: The types of events that end an order.
TERMINAL = frozenset({"payment.succeeded", "payment.failed", "payment.corrected"})

_STATUSES = {"success": "succeeded", "pending": "processing", "fail": "failed"}


def await_claims(acknowledged: Sequence[Callback], *, ledger: LedgerView, prefix: str) -> None:
    """Wait until every acknowledged callback is in the ledger; then none may be there twice."""
    promised = {claim_key(callback) for callback in acknowledged}
    assert promised, "nothing was acknowledged"

    def missing() -> Counter[ClaimKey]:
        return Counter(promised) - ledger.count_claims(prefix)

    def all_there() -> bool:
        lost = missing()
        assert not lost, f"{len(lost)} of {len(promised)} acknowledged claims are not in the ledger: {sorted(lost)[:5]}"
        return True

    eventually(all_there)
    twice = {key: count for key, count in ledger.count_claims(prefix).items() if count > 1}
    assert not twice, f"recorded more than once: {twice}"


def await_events(acknowledged: Sequence[Callback], *, ledger: LedgerView, downstream: Downstream, prefix: str) -> None:
    """Wait until every order that was paid has been told downstream; then each was told once, and in order."""
    paid = {callback.biz_order_no for callback in acknowledged if callback.pay_status == "success"}

    def all_told() -> bool:
        told = {event.biz_order_no for event in downstream.received if event.type in TERMINAL}
        untold = paid - told
        assert not untold, f"{len(untold)} of {len(paid)} paid orders were not told: {sorted(untold)[:5]}"
        return ledger.all_delivered()

    eventually(all_told)
    assert ledger.count_deliveries("parked") == 0
    for biz_order_no, arrived in first_arrivals(downstream, prefix).items():
        terminal = [event.id for event in arrived if event.type in TERMINAL]
        assert len(terminal) <= 1, f"{biz_order_no} has more than one terminal event: {terminal}"
        sequences = [event.sequence for event in arrived]
        assert sequences == list(range(1, len(arrived) + 1)), f"{biz_order_no} came in the order {sequences}"


def assert_told_once(downstream: Downstream, *, output: str) -> None:
    """No event came twice but those of which a try failed, or took too long, as the roles' `output` says.

    On a busy machine that may be.
    """
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{") and line.endswith("}")]
    failed = {line["event_id"] for line in lines if line["event"] in ("delivery_failed", "lease_lost")}
    came = Counter(event.id for event in downstream.received)
    twice = {event_id for event_id, times in came.items() if times > 1}
    assert twice <= failed, f"came more than once, and no try had failed: {sorted(twice - failed)}"


def first_arrivals(downstream: Downstream, prefix: str) -> dict[str, list[ReceivedEvent]]:
    """By order number: each event once, in the order in which it came first."""
    found: dict[str, dict[str, ReceivedEvent]] = defaultdict(dict)
    for event in downstream.received:
        if event.biz_order_no.startswith(prefix):
            found[event.biz_order_no].setdefault(event.id, event)
    return {biz_order_no: list(arrived.values()) for biz_order_no, arrived in found.items()}


def claim_key(callback: Callback) -> ClaimKey:
    """What the ledger makes of a callback."""
    return ClaimKey(callback.merchant, callback.biz_order_no, _STATUSES.get(callback.pay_status))
