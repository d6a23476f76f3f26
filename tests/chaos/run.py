"""One run: every role, real servers, callbacks, faults, and the accountant's report."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import urllib3
from sqlalchemy import Engine

from service.bootstrap.ledger import make_ledger_engine, make_store
from service.config.reading import load_settings
from service.config.settings import Settings
from service.ledger.audit import Author
from service.ledger.errors import LedgerUnavailable, ReplayCountDiffers
from service.ledger.replays import Replays, ReplayState, ReplayWindow
from tests.chaos.accountant import FAULTS
from tests.chaos.downstreams import READY
from tests.chaos.gateway import AES_KEY, UA
from tests.chaos.journal import Journal
from tests.chaos.plan import (
    DEBIT_PREFIX,
    PAY_TYPES,
    TOKEN_KEYS,
    Action,
    Fault,
    Sending,
    plan_faults,
    plan_orders,
    plan_sendings,
)
from tests.chaos.sender import Sender
from tests.support.callbacks import Callback
from tests.support.deployment import Deployment, Place, await_claims
from tests.support.disks import Disk
from tests.support.downstream import WEBHOOK_SECRET
from tests.support.postgresql import Database
from tests.support.processes import Process, Processes, answers, find_free_port
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually

# Shorter times than an operator would set, so that a run need not wait for leases and retries.
_SETTINGS = """
[inquirer]
poll_seconds = 0.1
lease_seconds = 5.0

[merchants.debit]
pay_types = ["{pay_types[debit]}"]
amount_unit = "yuan"
required_trust = "capability"
token_keys = [{{ kid = "k1", key = "{keys[debit]}" }}]

[merchants.asked]
pay_types = ["{pay_types[asked]}"]
amount_unit = "yuan"
required_trust = "query"
token_keys = [{{ kid = "k1", key = "{keys[asked]}" }}]
min_inquiry_interval_seconds = 0.5
first_inquiry_repeat_seconds = 0.5
max_inquiry_repeat_seconds = 2.0
max_inquiries_per_day = 100000
max_inquiries_per_minute = 60000
answer_due_seconds = 5.0

[merchants.asked.gateway]
url = "{gateway_url}/gateway"
ua = "{ua}"
aes_key = "{aes_key}"
not_found_messages = ["订单不存在"]
timeout_seconds = 2.0

[[endpoints]]
name = "shop"
kind = "webhook"
url = "http://127.0.0.1:{shop_port}/payment-events"
secrets = ["{secret}"]
types = ["payment.processing", "payment.succeeded", "payment.failed", "payment.corrected", "payment.conflicted"]
timeout_seconds = 2.0
initial_retry_seconds = 0.1
max_retry_seconds = 0.5
max_attempts = 1000
"""
# Of the disk of all roles. A round of the soak needs no more.
_DISK_MEBIBYTES = 128
_PRUNE_SECONDS = 5.0


class Foundation(StrEnum):
    """What the service runs on."""

    SERVERS = "RabbitMQ and PostgreSQL"
    SPOOL = "the same, with the spool"
    EMBEDDED = "embedded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much a run does."""

    callbacks: int
    kills: int
    freezes: int
    replays: int
    power_cuts: int = 0
    #: The most sendings that begin in a second.
    per_second: float
    #: The longest time for which somebody is frozen.
    max_seconds: float = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a run."""

    foundation: Foundation
    seed: int
    size: Size
    seconds: float
    #: How often old payloads and forged orders were removed.
    prunings: int
    #: What the accountant wrote: `Report` in accountant.py.
    report: Mapping[str, Any]

    @property
    def faults(self) -> Mapping[str, int]:
        """How many of each were found."""
        return {name: int(self.report[name]) for name in FAULTS}


def run_chaos(
    *,
    folder: Path,
    foundation: Foundation,
    seed: int,
    size: Size,
    rabbitmq: RabbitMQ | None = None,
    postgresql: Database | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Run everything in `folder`, which keeps the journals and the logs. The servers are needed unless it is embedded.

    An AssertionError where a role ends by itself, work never comes to an end, or something is parked or dead-lettered.
    What the accountant finds is in the outcome. `on_progress` is told how many sendings have ended, and of how many.
    """
    began = time.monotonic()
    with ExitStack() as held:
        stage = Stage(
            folder=folder,
            foundation=foundation,
            power_cuts=size.power_cuts,
            rabbitmq=rabbitmq,
            postgresql=postgresql,
            held=held,
        )
        stage.start()
        sendings = plan_sendings(plan_orders(seed=seed, callbacks=size.callbacks), seed=seed)
        faults = plan_faults(
            seed=seed,
            sendings=len(sendings),
            kills=size.kills,
            killed=stage.killed,
            freezes=size.freezes,
            frozen=stage.frozen,
            replays=size.replays,
            power_cuts=size.power_cuts,
            max_seconds=size.max_seconds,
        )
        with Sender(
            url=stage.url, api_url=stage.api_url, sendings=sendings, folder=folder, per_second=size.per_second
        ) as sender:
            for number, fault in enumerate(faults):
                # Half of what comes before the next fault is sent while this one lasts.
                next_one = faults[number + 1].after if number + 1 < len(faults) else len(sendings)
                sender.allow((fault.after + next_one) // 2)
                sender.wait_for(fault.after)
                stage.inflict(fault)
                on_progress(sender.ended, len(sendings))
            # What still fails now fails because of the last fault, and what fails afterwards because of the restart.
            sender.allow(calm := len(sendings) * 4 // 5)
            sender.wait_for(calm)
            stage.wait_until_ready()
            sender.allow(len(sendings))
            stage.restart_roles()
            sender.wait_for(len(sendings))
            on_progress(sender.ended, len(sendings))
        stage.come_to_rest()
        report = stage.audit()
        if not report["faults"]:
            # Late callbacks make no event, so the accountant cannot miss them.
            stage.await_claims([one.callback for one in sendings if isinstance(one, Sending) and one.is_true])
    return Outcome(
        foundation=foundation,
        seed=seed,
        size=size,
        seconds=time.monotonic() - began,
        prunings=stage.prunings,
        report=report,
    )


class Stage:
    """Everybody who takes part, by name, and what can be done to them."""

    def __init__(
        self,
        *,
        folder: Path,
        foundation: Foundation,
        power_cuts: int,
        rabbitmq: RabbitMQ | None,
        postgresql: Database | None,
        held: ExitStack,
    ) -> None:
        """`held` ends everything that is started."""
        self._folder = folder
        self._servers: Mapping[str, RabbitMQ | Database] = {}
        place = Place()
        if foundation is not Foundation.EMBEDDED:
            assert rabbitmq is not None, f"{foundation} needs RabbitMQ"
            assert postgresql is not None, f"{foundation} needs PostgreSQL"
            self._servers = {"rabbitmq": rabbitmq, "postgresql": postgresql}
            self._rabbitmq = rabbitmq
            place = Place(amqp_url=rabbitmq.url, database_url=postgresql.url)
        self._replays: list[int] = []
        #: How often old payloads and forged orders were removed.
        self.prunings = 0
        self._stopped, self._disk_in_use = threading.Event(), threading.Lock()
        self._pruner = threading.Thread(target=self._prune, daemon=True)
        held.callback(self._stopped.set)
        self._cut_servers = power_cuts > 0 and foundation is Foundation.SERVERS
        has_disk = power_cuts > 0 and not self._cut_servers
        self._disk = held.enter_context(Disk(mebibytes=_DISK_MEBIBYTES)) if has_disk else None
        self._has_spool = foundation is Foundation.SPOOL
        more = ("ledger-2", "dispatcher-2") if self._servers else ()
        self._roles = ("receiver", "ledger", "inquirer", "dispatcher", "api", *more)
        #: Who may be killed, and who may be frozen. `worker` and `master` are parts of the receiver.
        self.killed = ("worker", "master", *self._roles, *self._servers, "gateway")
        self.frozen = (*self._roles, *self._servers, "gateway", "shop", *(["bus"] if self._servers else []))
        gateway_port, shop_port = find_free_port(), find_free_port()
        self._gateway_url = f"http://127.0.0.1:{gateway_port}"
        self._others = Processes(folder=folder)
        held.callback(self._others.kill_all)
        (folder / "installation").mkdir()
        if self._disk is not None:
            (folder / "installation" / "data").symlink_to(self._disk.path)
        self._deployment = held.enter_context(
            Deployment(
                folder=folder / "installation",
                place=place,
                downstreams={},
                spool=self._has_spool,
                more_settings=_SETTINGS.format(
                    pay_types=PAY_TYPES,
                    keys=TOKEN_KEYS,
                    gateway_url=self._gateway_url,
                    ua=UA,
                    aes_key=AES_KEY,
                    shop_port=shop_port,
                    secret=WEBHOOK_SECRET,
                ),
            )
        )
        self._downstreams = {"shop": self._start_downstream("shop", str(shop_port))}
        if self._servers:
            self._downstreams["bus"] = self._start_downstream("bus", place.amqp_url)
        self.api_url = self._deployment.give_api()
        self._gateway = self._others.start_command(
            *(sys.executable, "-m", "tests.chaos.gateway", folder / "gateway.jsonl", str(gateway_port)),
            name="gateway",
        )
        self._write_terms()

    @property
    def url(self) -> str:
        """Where the receiver takes callbacks."""
        return self._deployment.url

    def start(self) -> None:
        """Start every role, and wait until nobody can miss anything."""
        self._deployment.prepare()
        self._deployment.start(*self._roles)
        self.wait_until_ready()
        if self._cut_servers:
            self._rabbitmq.keep_queues()
        for process in self._downstreams.values():
            process.wait_until(_is_ready, process)
        self._pruner.start()

    def inflict(self, fault: Fault) -> None:
        """Kill or freeze, and mend it again. Everybody else has to go on: a role that ends by itself is an error.

        A replay goes on in the background.
        """
        match fault.action:
            case Action.REPLAY:
                eventually(lambda: self._replay(*fault.victims))
            case Action.FREEZE:
                [victim] = fault.victims
                frozen = self._servers.get(victim) or self._process(victim)
                frozen.freeze()
                time.sleep(fault.seconds)
                frozen.thaw()
            case Action.POWER_CUT:
                self._cut_power(fault.seconds)
            case Action.KILL:
                for victim in fault.victims:
                    self._kill(victim)
                time.sleep(fault.seconds)
                # Servers first: the receiver's start waits until it is ready.
                for victim in sorted(fault.victims, key=lambda victim: victim not in self._servers):
                    self._start_again(victim)
        ended = [name for name in self._roles if not self._deployment.role(name).running]
        assert not ended, f"{ended} ended by themselves around {fault}: {self._deployment.describe()}"

    def wait_until_ready(self) -> None:
        """Wait until everybody who answers requests does so."""
        self._gateway.wait_until(answers, f"{self._gateway_url}/admin/report")
        self._deployment.wait_until_receiving()
        self._deployment.role("api").wait_until(answers, f"{self.api_url}/readyz")

    def restart_roles(self) -> None:
        """End each role in good order and start it again, one after the other."""
        began = time.time()
        for name in self._roles:
            self._end(name)
            self._start_again(name)
        journal = Journal(self._folder / "restarts.jsonl")
        journal.write({"from": began, "to": time.time()})
        journal.close()

    def come_to_rest(self) -> None:
        """Wait until everything is done, end the roles in good order, and see that nothing is left anywhere."""
        report = f"{self._gateway_url}/admin/report"
        eventually(lambda: urllib3.request("GET", report).json()["orders_unsettled"] == 0)
        if self._has_spool:
            drained = self._deployment.command("spool", "drain", "--within", "120")
            assert drained.returncode == 0, drained.stderr
        ledgers = [name for name in self._roles if name.startswith("ledger")]
        while True:
            eventually(self._is_idle, why=self._deployment.describe)
            with contextlib.suppress(AssertionError):  # what is lost is in the report
                eventually(lambda: self.audit()["lost"] == 0)
            for name in ledgers:
                self._end(name)
            # What they held has gone back to the queue.
            if self._deployment.count_messages("ledger") == 0:
                break
            self._deployment.start(*ledgers)
        eventually(self._deployment.ledger.all_delivered)
        assert self._deployment.ledger.count_deliveries("parked") == 0
        before = self.prunings
        eventually(lambda: self.prunings > before)
        self._stopped.set()
        self._pruner.join()
        for name in set(self._roles) - set(ledgers):
            self._end(name)
        if "bus" in self._downstreams:
            assert self._downstreams["bus"].terminate() == 0, self._downstreams["bus"].describe()
        self._deployment.assert_no_dead_letters()

    def await_claims(self, taken: Sequence[Callback]) -> None:
        """Wait until those that were `taken` are in the ledger; none may be there twice."""
        of_debit = [callback for callback in taken if callback.merchant == "debit"]
        await_claims(of_debit, ledger=self._deployment.ledger, prefix=DEBIT_PREFIX)

    def audit(self) -> Mapping[str, Any]:
        """Have the accountant count: a process of its own, which cannot even import what is tested."""
        command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("accountant.py")), str(self._folder)]
        environment = {"PATH": os.environ["PATH"]}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.stdout, f"the accountant could not count: {done.stderr}"
        report: Mapping[str, Any] = json.loads(done.stdout)
        return report

    def _is_idle(self) -> bool:
        is_recorded = self._deployment.count_messages("ledger") == 0
        if not is_recorded or self._deployment.ledger.count_deliveries("open"):
            return False
        with self._replaying() as replays:
            records = [replays.load(replay) for replay in self._replays]
        return all(record is not None and record.state is ReplayState.DONE for record in records)

    def _replay(self, endpoint: str) -> bool:
        """False where it has to be requested again."""
        # Of events that were made a moment ago, more may be committed yet.
        until = datetime.now(UTC) - timedelta(seconds=5)
        window = ReplayWindow(endpoint=endpoint, since=until - timedelta(days=1), until=until)
        with self._replaying() as replays:
            author = Author(name="chaos", reason="to see that it does no harm")
            try:
                replay = replays.request(window, expected=replays.count(window), per_second=500, author=author)
            except (ReplayCountDiffers, LedgerUnavailable):
                return False
        self._replays.append(replay.id)
        return True

    @contextlib.contextmanager
    def _replaying(self) -> Iterator[Replays]:
        with self._ledger() as (_, engine):
            yield Replays(engine=engine)

    @contextlib.contextmanager
    def _ledger(self) -> Iterator[tuple[Settings, Engine]]:
        place = self._deployment.place
        environment = {"AMQP_URL": place.amqp_url, "DATABASE_URL": place.database_url} if self._servers else {}
        settings = load_settings(self._deployment.settings_file, environment)
        engine = make_ledger_engine(settings)
        try:
            yield settings, engine
        finally:
            engine.dispose()

    def _prune(self) -> None:
        """Again and again, as a schedule would do once a day."""
        while not self._stopped.wait(_PRUNE_SECONDS):
            with self._disk_in_use, self._ledger() as (settings, engine), contextlib.suppress(LedgerUnavailable):
                make_store(settings, engine).prune(before=datetime.now(UTC))
                self.prunings += 1

    def _cut_power(self, seconds: float) -> None:
        """Of the servers' machines, or else of the machine of all roles.

        With a spool, RabbitMQ is away at the time, because the disk of the roles would hold nothing.
        """
        if self._cut_servers:
            for server in self._servers.values():
                server.cut_power()
            time.sleep(seconds)
            for server in self._servers.values():
                server.start()
            return
        assert self._disk is not None, "only a run with power cuts has a disk of its own"
        for victim in self._has_spool * ["rabbitmq"]:
            self._kill(victim)
            time.sleep(seconds)
        with self._disk_in_use:
            for name in self._roles:
                self._deployment.role(name).freeze()
            # Among them are workers whose master was killed before.
            users = self._disk.users()
            _signal_all(users, signal.SIGSTOP)
            self._disk.cut_power(lambda: self._kill_all(users))
        for victim in self._has_spool * ["rabbitmq"]:
            self._start_again(victim)
        self._deployment.start(*self._roles)

    def _kill_all(self, pids: Sequence[int]) -> None:
        for name in self._roles:
            self._deployment.kill(name)
        _signal_all(pids, signal.SIGKILL)

    def _process(self, name: str) -> Process:
        if name == "gateway":
            return self._gateway
        return self._downstreams.get(name) or self._deployment.role(name)

    def _kill(self, victim: str) -> None:
        match victim:
            case "worker":
                eventually(self._kill_worker)
            case "master":
                self._deployment.kill_master()
            case server if server in self._servers:
                self._servers[server].kill()
            case name:
                self._process(name).kill()

    def _end(self, role: str) -> None:
        """End a role in good order. One that is only starting has no handler of signals yet, and holds nothing."""
        process = self._deployment.role(role)
        assert process.terminate() in (0, -signal.SIGTERM), process.describe()

    def _kill_worker(self) -> bool:
        """False where there is none at the moment."""
        with contextlib.suppress(IndexError, ProcessLookupError):
            self._deployment.kill_worker()
            return True
        return False

    def _start_again(self, victim: str) -> None:
        match victim:
            case "worker":
                pass  # the master starts another
            case "master" | "receiver":
                self._deployment.start_receiver_again()
            case server if server in self._servers:
                self._servers[server].start()
            case name:
                self._process(name).start()

    def _start_downstream(self, name: str, address: str) -> Process:
        journal = self._folder / f"events-{name}.jsonl"
        journal.touch()
        return self._others.start_command(
            sys.executable, "-m", "tests.chaos.downstreams", name, journal, address, name=name
        )

    def _write_terms(self) -> None:
        endpoints = {"shop": {"kind": "webhook", "secret": WEBHOOK_SECRET}}
        if self._servers:
            endpoints["bus"] = {"kind": "amqp"}
        trusts = {"debit": "capability", "asked": "query"}
        terms = {
            "merchants": {
                name: {"trust": trust, "token_keys": {"k1": TOKEN_KEYS[name]}} for name, trust in trusts.items()
            },
            "endpoints": endpoints,
            "acknowledgement": "success",
        }
        (self._folder / "terms.json").write_text(json.dumps(terms, ensure_ascii=False), encoding="utf-8")


def _signal_all(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _is_ready(downstream: Process) -> bool:
    return READY in downstream.output.splitlines()
