"""Roles and commands that are killed at a named place, always the same: nothing is lost, and nothing is done twice.

`make crash-points` kills at each point 20 times, the first time at the first call of its function, then at the second.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import urllib3
from sqlalchemy import Engine, update

from service.bootstrap.ledger import make_ledger_engine
from service.bootstrap.messaging import make_message_counter
from service.config.reading import load_settings
from service.config.settings import Settings
from service.gateway.cipher import ArgsCipher, RequestDialect
from service.ledger.announcements import Announcement
from service.ledger.replays import Replays, ReplayState, ReplayWindow
from service.ledger.schema import schema_is_current
from service.ledger.tables import claims
from tests.support.api import ApiCaller, order_path
from tests.support.callbacks import Callback
from tests.support.claims import AUTHOR
from tests.support.crash_points import CrashPoint, ForkedCommand
from tests.support.deployment import Deployment, Place, await_claims, await_events
from tests.support.downstream import Downstream, ReceivedEvent
from tests.support.gateway import AES_KEY, NOT_FOUND, UA
from tests.support.http_server import Answer, Request, ScriptedServer
from tests.support.postgresql import PostgreSQL
from tests.support.processes import answers
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually

TIMES = int(os.environ.get("CRASH_POINT_TIMES", "2"))

ROLES = ("receiver", "ledger", "inquirer", "dispatcher", "api")
EMBEDDED, SERVERS = "embedded", "servers"

#: Leases that a killed process leaves behind run out soon.
SHORT = {"lease_seconds = 4.0": "lease_seconds = 1.0", "timeout_seconds = 2.0": "timeout_seconds = 0.5"}
SETTINGS = f"""
[inquirer]
poll_seconds = 0.1
lease_seconds = 1.0

[merchants.charged]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
required_trust = "query"
answer_due_seconds = 0.3
min_inquiry_interval_seconds = 0.2
max_inquiries_per_day = 1000
max_inquiries_per_minute = 6000
first_inquiry_repeat_seconds = 0.2
max_inquiry_repeat_seconds = 0.4

[merchants.charged.gateway]
url = "{{gateway_url}}"
ua = "{UA}"
aes_key = "{AES_KEY}"
timeout_seconds = 0.5
not_found_messages = ["{NOT_FOUND}"]
"""
PERSON = {
    "name": "欧阳测试",
    "id_card_number": "11010519491231002X",
    "mobile": "13800138000",
    "bank_card_number": "6222021234567890128",
}

# ---- what is killed, and where it works -------------------------------------------------------------------------


class ChargingGateway(ScriptedServer):
    """Accepts every withhold, and says of an order that it charged that it is paid."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.charged: set[str] = set()
        #: How many withholds came for each order, and how many queries.
        self.withholds: Counter[str] = Counter()
        self.queries: Counter[str] = Counter()
        self._cipher = ArgsCipher(key=AES_KEY, dialect=RequestDialect.from_settings({}))

    def _answer(self, request: Request) -> Answer:
        envelope = request.json()
        order = str(self._cipher.open(envelope["args"])["biz_order_no"])
        said = {"biz_order_no": order, "pay_order_no": f"P{order}", "pay_type": "baofoo_001"}
        if envelope["method"] == "single-withhold":
            self.withholds[order] += 1
            self.charged.add(order)
            return _answered({**said, "pay_status": "pending"})
        self.queries[order] += 1
        if order not in self.charged:
            return Answer(body=json.dumps({"status": "-1", "message": NOT_FOUND, "response": {}}))
        return _answered({**said, "pay_status": "success", "pay_time": "", "channel_response": ""})


def _answered(response: dict[str, str]) -> Answer:
    return Answer(body=json.dumps({"status": "1", "message": "成功", "response": response}))


class Site:
    """One installation with all its roles, each of which may be killed and started again."""

    def __init__(
        self,
        *,
        place: Place,
        folder: Path,
        rabbitmq: RabbitMQ,
        shop: Downstream,
        gateway: ChargingGateway,
        make_another: Callable[[], "Site"],
    ) -> None:
        """`rabbitmq` is used if the place is there. `make_another` makes a site on an empty place of the same kind.

        Close it.
        """
        self.rabbitmq = rabbitmq
        self.place, self.shop, self.gateway, self.make_another = place, shop, gateway, make_another
        self.deployment = Deployment(
            folder=folder,
            place=place,
            downstreams={"shop": shop},
            spool=bool(place.amqp_url),
            more_settings=SETTINGS.format(gateway_url=gateway.url),
        )
        self._shorten_times(self.deployment.settings_file)
        self.api = ApiCaller(url=self.deployment.give_api(workers=1))
        self._folder = folder
        self._environment = {
            name: value
            for name, value in {"AMQP_URL": place.amqp_url, "DATABASE_URL": place.database_url}.items()
            if value
        }
        self._numbers = count(1)
        self._running: dict[str, ForkedCommand] = {}

    @staticmethod
    def _shorten_times(settings_file: Path) -> None:
        text = settings_file.read_text()
        for usual, short in SHORT.items():
            assert usual in text
            text = text.replace(usual, short)
        settings_file.write_text(text)

    @property
    def settings(self) -> Settings:
        return load_settings(self.deployment.settings_file, self._environment)

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """The ledger's database."""
        engine = make_ledger_engine(self.settings)
        yield engine
        engine.dispose()

    def kill(self, *command: str) -> None:
        """Kill a command, if it runs."""
        name = " ".join(command)
        if name in self._running:
            self._running[name].kill()

    def start(self, *command: str, crash: tuple[CrashPoint, int] | None = None) -> ForkedCommand:
        """Start a command, in place of the one with the same arguments that runs."""
        self.kill(*command)
        name = " ".join(command)
        self._running[name] = ForkedCommand(
            "--config",
            str(self.deployment.settings_file),
            *command,
            environment=self._environment,
            log_file=self._folder / f"{next(self._numbers)}-{command[-1]}.log",
            crash=crash,
        )
        return self._running[name]

    def start_all(self) -> None:
        """Start the roles that do not run."""
        for role in ROLES:
            name = f"run {role}"
            if name not in self._running or not self._running[name].running:
                self.start("run", role)

    def close(self) -> None:
        for command in self._running.values():
            command.kill()
        self.api.close()
        with self.deployment:
            pass  # it closes what it has opened

    def describe(self) -> str:
        return "\n\n".join(command.describe() for command in self._running.values())


class Sites:
    """Two sites that the tests share, on either foundation, made when they are first used."""

    def __init__(self, make: Callable[[str], Site]) -> None:
        self._make = make
        self._made: dict[str, Site] = {}

    def __getitem__(self, foundation: str) -> Site:
        if foundation not in self._made:
            self._made[foundation] = self._make(foundation)
            self._made[foundation].deployment.prepare()
        return self._made[foundation]

    def describe(self) -> str:
        """What the commands wrote last, for the report of a failed test."""
        return "\n\n".join(site.describe() for site in self._made.values())


@pytest.fixture(scope="module")
def sites(
    rabbitmq: RabbitMQ, postgresql_cluster: PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sites]:
    with ExitStack() as stack:
        shop = stack.enter_context(Downstream())
        gateway = stack.enter_context(ChargingGateway())

        def make(foundation: str) -> Site:
            place = Place()
            if foundation == SERVERS:
                place = Place(
                    amqp_url=rabbitmq.create_virtual_host(), database_url=postgresql_cluster.create_database()
                )
            site = Site(
                place=place,
                folder=tmp_path_factory.mktemp(foundation),
                rabbitmq=rabbitmq,
                shop=shop,
                gateway=gateway,
                make_another=lambda: make(foundation),
            )
            stack.callback(site.close)
            return site

        yield Sites(make)


# ---- what they work on, and how it has to end -------------------------------------------------------------------


class Scenario:
    """Work for a command that is about to die, and how it has to end."""

    def __init__(self, site: Site, prefix: str) -> None:
        """Order numbers begin with `prefix`, which is no other's."""
        self.site = site
        self.prefix = prefix
        self._numbers = count(1)

    def prepare(self) -> None:
        """Before the command is started."""

    def work_until(self, dead: Callable[[], bool]) -> None:
        """Give the command work until it is dead."""
        eventually(dead, why=self.site.describe)

    def check(self) -> None:
        """Wait for the right end, once the command was started again."""

    def new_order(self) -> str:
        return f"{self.prefix}{next(self._numbers)}"

    def events(self) -> dict[str, list[ReceivedEvent]]:
        """What downstream has received of this scenario's orders, by order, repeats too."""
        found = defaultdict(list)
        for event in self.site.shop.received:
            if event.biz_order_no.startswith(self.prefix):
                found[event.biz_order_no].append(event)
        return found

    def assert_repeats_are_equal(self) -> None:
        """Who got an event twice can tell by its id, and need not look at the rest."""
        for received in self.events().values():
            contents: dict[str, Any] = {}
            for event in received:
                assert contents.setdefault(event.id, event.envelope) == event.envelope


class Callbacks(Scenario):
    """The gateway sends a callback until it is acknowledged, and then the next one."""

    def __init__(self, site: Site, prefix: str) -> None:
        super().__init__(site, prefix)
        self.acknowledged: list[Callback] = []
        self._waiting: list[Callback] = []

    def send_next(self) -> bool:
        """Send one, for the first time or again. Whether it was acknowledged."""
        if not self._waiting:
            order = self.new_order()
            self._waiting = [
                self.site.deployment.callback(order, pay_status=status) for status in ("pending", "success")
            ]
        answered = self.site.deployment.sender.send(self._waiting[0])
        if answered.acknowledged:
            self.acknowledged.append(self._waiting.pop(0))
        return answered.acknowledged

    def send(self, orders: int) -> None:
        """Send both callbacks of so many orders."""
        for _ in range(2 * orders):
            eventually(self.send_next, why=self.site.describe)

    def work_until(self, dead: Callable[[], bool]) -> None:
        def send_or_dead() -> bool:
            self.send_next()
            return dead()

        eventually(send_or_dead, why=self.site.describe)

    def check(self) -> None:
        while self._waiting or not self.acknowledged:
            eventually(self.send_next, why=self.site.describe)
        ledger = self.site.deployment.ledger
        await_claims(self.acknowledged, ledger=ledger, prefix=self.prefix)
        await_events(self.acknowledged, ledger=ledger, downstream=self.site.shop, prefix=self.prefix)
        self.assert_repeats_are_equal()


class SpooledCallbacks(Callbacks):
    """The receiver is killed while it spools: the broker is out of memory, and takes nothing."""

    def work_until(self, dead: Callable[[], bool]) -> None:
        eventually(lambda: answers(f"{self.site.deployment.url}/readyz"), why=self.site.describe)
        self.site.rabbitmq.block_publishers()
        try:
            super().work_until(dead)
        finally:
            self.site.rabbitmq.unblock_publishers()


class ForwardedCallbacks(Callbacks):
    """The receiver is killed while it forwards what another one has spooled."""

    def prepare(self) -> None:
        eventually(lambda: answers(f"{self.site.deployment.url}/readyz"), why=self.site.describe)
        self.site.rabbitmq.block_publishers()
        try:
            self.send(orders=10)
            self.site.kill("run", "receiver")
        finally:
            self.site.rabbitmq.unblock_publishers()

    def work_until(self, dead: Callable[[], bool]) -> None:
        Scenario.work_until(self, dead)


class Inquiries(Scenario):
    """Orders that the gateway has charged, of which no callback comes."""

    def __init__(self, site: Site, prefix: str) -> None:
        super().__init__(site, prefix)
        self._orders: list[str] = []

    def work_until(self, dead: Callable[[], bool]) -> None:
        def announce_or_dead() -> bool:
            order = self.new_order()
            self.site.gateway.charged.add(order)
            due = datetime.now(UTC)
            self.site.deployment.announce([Announcement(merchant="charged", biz_order_no=order, answer_due_at=due)])
            self._orders.append(order)
            return dead()

        eventually(announce_or_dead, why=self.site.describe)

    def check(self) -> None:
        eventually(lambda: self.events().keys() == set(self._orders), why=self.site.describe)
        eventually(self.site.deployment.ledger.all_delivered)
        counted = Counter(question.biz_order_no for question in self.site.deployment.ledger.questions(self.prefix))
        for order in self._orders:
            assert {(event.type, event.sequence) for event in self.events()[order]} == {("payment.succeeded", 1)}
            assert [claim.source for claim in self.site.deployment.ledger.claims_about(order)] == ["query"]
            assert self.site.gateway.queries[order] <= counted[order], f"{order} was asked about uncounted"
        self.assert_repeats_are_equal()


class Withholds(Scenario):
    """A caller of the API has orders charged, and repeats a request that got no answer."""

    def __init__(self, site: Site, prefix: str) -> None:
        super().__init__(site, prefix)
        self._outcomes: dict[str, str] = {}
        self._waiting = ""

    def work_until(self, dead: Callable[[], bool]) -> None:
        def request_or_dead() -> bool:
            self._request()
            return dead()

        eventually(request_or_dead, why=self.site.describe)

    def check(self) -> None:
        eventually(lambda: self._request() if self._waiting else True, why=self.site.describe)
        gateway = self.site.gateway
        assert self._outcomes
        assert all(gateway.withholds[order] <= 1 for order in self._outcomes), "an order was charged twice"
        charged = {order for order in self._outcomes if order in gateway.charged}
        for order in self._outcomes.keys() - charged:
            # Nobody knows whether it was sent, so nobody sends it again: the gateway is asked until it has an answer.
            history = self.site.api.get(order_path("charged", order)).value
            assert (history["withhold"]["outcome"], history["inquiry"]["state"] in ("open", "asking")) == (
                "sending",
                True,
            )
            gateway.charged.add(order)
        eventually(lambda: self.events().keys() == self._outcomes.keys(), why=self.site.describe)
        for received in self.events().values():
            assert {(event.type, event.sequence) for event in received} == {("payment.succeeded", 1)}
        self.assert_repeats_are_equal()

    def _request(self) -> bool:
        """Request one withhold, for the first time or again. Whether there was an answer."""
        self._waiting = self._waiting or self.new_order()
        order = {"merchant": "charged", "biz_order_no": self._waiting, "amount": "10.00", "pay_type": "baofoo_001"}
        try:
            answer = self.site.api.post("/v1/withholds", {**order, **PERSON})
        except urllib3.exceptions.HTTPError:
            return False
        assert answer.status in (202, 503), answer
        if answer.status == 503:
            return False
        self._outcomes[self._waiting], self._waiting = answer.value["outcome"], ""
        return True


class Replayed(Callbacks):
    """Events that were delivered are replayed, one in a second."""

    def prepare(self) -> None:
        self._since = datetime.now(UTC)
        self.send(orders=1)
        super().check()

    def work_until(self, dead: Callable[[], bool]) -> None:
        window = ReplayWindow(endpoint="shop", since=self._since, until=datetime.now(UTC))
        with self.site.engine() as engine:
            self._replay = Replays(engine=engine).request(window, expected=2, per_second=1, author=AUTHOR).id
        Scenario.work_until(self, dead)

    def check(self) -> None:
        with self.site.engine() as engine:

            def state() -> tuple[ReplayState, int] | None:
                replay = Replays(engine=engine).load(self._replay)
                return None if replay is None else (replay.state, replay.done)

            eventually(lambda: state() == (ReplayState.DONE, 2), why=self.site.describe)
        super().check()
        assert min(Counter(event.id for received in self.events().values() for event in received).values()) >= 2


class Pruned(Callbacks):
    """A payload is old enough to be removed."""

    def prepare(self) -> None:
        self.send(orders=1)
        super().check()
        with self.site.engine() as engine, engine.begin() as connection:
            old = datetime.now(UTC) - timedelta(days=3)
            connection.execute(
                update(claims).where(claims.c.biz_order_no.startswith(self.prefix)).values(recorded_at=old)
            )

    def check(self) -> None:
        assert self.site.start("prune", "--keep-days", "1").wait() == 0, self.site.describe()
        before = self._known()
        assert [(claim.pruned, claim.unknown_fields) for claim in self._claims] == [(True, "{}"), (True, "{}")]
        for callback in self.acknowledged:  # the gateway repeats it once more: it must not pay again
            assert self.site.deployment.sender.send(callback).acknowledged
        self.send(orders=1)
        super().check()
        assert self._known() == before

    @property
    def _claims(self) -> Sequence[Any]:
        return self.site.deployment.ledger.claims_about(f"{self.prefix}1")

    def _known(self) -> Any:
        ledger = self.site.deployment.ledger
        return ledger.order(f"{self.prefix}1"), ledger.events_about(f"{self.prefix}1"), self._claims


class Migrated(Scenario):
    """An empty database gets its tables."""

    def __init__(self, site: Site, prefix: str) -> None:
        super().__init__(site.make_another(), prefix)

    def check(self) -> None:
        assert self.site.start("migrate").wait() == 0, self.site.describe()
        with self.site.engine() as engine:
            assert schema_is_current(engine)


# ---- the points -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A command, the work at which it is killed, and the point."""

    command: tuple[str, ...]
    scenario: type[Scenario]
    name: str
    point: CrashPoint
    foundations: tuple[str, ...]
    #: So many calls of the function there are for certain.
    most_calls: int


def at(
    scenario: type[Scenario],
    command: str,
    name: str,
    point: CrashPoint,
    *,
    only: str = "",
    most_calls: int = 1000,
) -> Case:
    return Case(
        command=tuple(command.split()),
        scenario=scenario,
        name=f"{command.split()[-1] if command.startswith('run') else command.split()[0]}: {name}",
        point=point,
        foundations=(only,) if only else (EMBEDDED, SERVERS),
        most_calls=most_calls,
    )


def before(function: str, *, within: str = "") -> CrashPoint:
    return CrashPoint(when="before", function=function, within=within)


def after(function: str, *, within: str = "", found: bool = False) -> CrashPoint:
    return CrashPoint(when="after", function=function, within=within, found=found)


COMMIT = "sqlalchemy.engine.default:DefaultDialect.do_commit"
WRITE = "service.messaging.sqlite.queue:_Write.run"
COMMITTED = before(
    "service.messaging.sqlite.queue:FileConnection.require_file", within="service.messaging.sqlite.queue:_commit"
)
SETTLE_RESPONSE = "service.serving.http:PendingResponse.settle"
RABBIT_PUBLISHER = "service.messaging.rabbitmq.publisher:RabbitPublisher"
RABBIT_SUBSCRIBER = "service.messaging.rabbitmq.subscriber:RabbitSubscriber"
EMBEDDED_SUBSCRIBER = "service.messaging.sqlite.queue:EmbeddedSubscriber"
RECORD = "service.ledger.store:LedgerStore.record"
SETTLE_DELIVERED = "service.ledger.outbox:Outbox.settle_delivered"
INQUIRY_QUEUE = "service.ledger.inquiry_queue:InquiryQueue"
BEGIN_WITHHOLD = "service.ledger.withholds:Withholds.begin"
REMOVE = "service.messaging.sqlite.queue:EmbeddedQueue.remove"

CASES = (
    at(Callbacks, "run receiver", "verified, not published", after("service.receiver.app:verify_callback")),
    at(Callbacks, "run receiver", "queued, not committed", after(WRITE), only=EMBEDDED),
    at(Callbacks, "run receiver", "committed, not confirmed", COMMITTED, only=EMBEDDED),
    at(Callbacks, "run receiver", "published, not confirmed", after(f"{RABBIT_PUBLISHER}._send"), only=SERVERS),
    at(Callbacks, "run receiver", "confirm not read", before(f"{RABBIT_PUBLISHER}._on_confirm"), only=SERVERS),
    at(Callbacks, "run receiver", "confirmed, not answered", before(SETTLE_RESPONSE)),
    at(
        Callbacks, "run receiver", "answered", after("service.serving.worker:Connection.answer", within=SETTLE_RESPONSE)
    ),
    at(SpooledCallbacks, "run receiver", "spooled, not committed", after(WRITE), only=SERVERS),
    at(SpooledCallbacks, "run receiver", "spooled, not confirmed", COMMITTED, only=SERVERS),
    at(ForwardedCallbacks, "run receiver", "forwarded, not removed", before(REMOVE), only=SERVERS, most_calls=2),
    at(ForwardedCallbacks, "run receiver", "forwarded and removed", after(REMOVE), only=SERVERS, most_calls=2),
    at(Callbacks, "run ledger", "received", after(f"{EMBEDDED_SUBSCRIBER}.receive", found=True), only=EMBEDDED),
    at(Callbacks, "run ledger", "received", after(f"{RABBIT_SUBSCRIBER}.receive", found=True), only=SERVERS),
    at(Callbacks, "run ledger", "recorded, not committed", before(COMMIT, within=RECORD)),
    at(Callbacks, "run ledger", "committed, not acknowledged", after(COMMIT, within=RECORD)),
    at(Callbacks, "run ledger", "acknowledged", after(f"{EMBEDDED_SUBSCRIBER}.acknowledge"), only=EMBEDDED),
    at(Callbacks, "run ledger", "acknowledged", after(f"{RABBIT_SUBSCRIBER}.acknowledge"), only=SERVERS),
    at(Callbacks, "run dispatcher", "leased", after("service.ledger.outbox:Outbox.lease_due", found=True)),
    at(Callbacks, "run dispatcher", "not sent yet", before("consumers.sinks.webhook:WebhookSink.send")),
    at(Callbacks, "run dispatcher", "sent, not settled", after("consumers.sinks.webhook:WebhookSink.send")),
    at(
        Callbacks, "run dispatcher", "published, not settled", after("consumers.sinks.amqp:AmqpSink.send"), only=SERVERS
    ),
    at(Callbacks, "run dispatcher", "settled, not committed", before(COMMIT, within=SETTLE_DELIVERED)),
    at(Callbacks, "run dispatcher", "settled and committed", after(COMMIT, within=SETTLE_DELIVERED)),
    at(Inquiries, "run inquirer", "counted, not asked", after(f"{INQUIRY_QUEUE}.lease_due", found=True)),
    at(Inquiries, "run inquirer", "asked, not recorded", after("service.gateway.client:GatewayClient.query")),
    at(Inquiries, "run inquirer", "recorded, not committed", before(COMMIT, within=f"{INQUIRY_QUEUE}.settle")),
    at(Inquiries, "run inquirer", "recorded and committed", after(COMMIT, within=f"{INQUIRY_QUEUE}.settle")),
    at(Withholds, "run api", "announced, not begun", before(BEGIN_WITHHOLD)),
    at(Withholds, "run api", "begun, gateway not asked", after(BEGIN_WITHHOLD)),
    at(Withholds, "run api", "gateway asked", after("service.gateway.client:GatewayClient.withhold")),
    at(Withholds, "run api", "outcome recorded", after("service.ledger.withholds:Withholds.settle")),
    at(
        Replayed,
        "run dispatcher",
        "due again, not committed",
        after("service.ledger.replays:_reopen_next"),
        most_calls=2,
    ),
    at(
        Replayed,
        "run dispatcher",
        "due again and committed",
        after("service.ledger.replays:Replays.carry_on", found=True),
        most_calls=2,
    ),
    at(
        Pruned,
        "prune --keep-days 1",
        "emptied, not committed",
        after("service.ledger.store:prune_payloads"),
        most_calls=1,
    ),
    at(
        Pruned, "prune --keep-days 1", "emptied and committed", before("service.ledger.store:prune_asked"), most_calls=1
    ),
    at(
        Migrated,
        "migrate",
        "made, not committed",
        before(COMMIT, within="service.cli.migrate:migrate_engine"),
        most_calls=1,
    ),
    at(
        Migrated,
        "migrate",
        "made and committed",
        after(COMMIT, within="service.cli.migrate:migrate_engine"),
        most_calls=1,
    ),
)


@pytest.mark.parametrize("time", range(TIMES))
@pytest.mark.parametrize(
    ("foundation", "case"),
    [pytest.param(one, case, id=f"{one}, {case.name}") for case in CASES for one in case.foundations],
)
def test_a_killed_command_that_is_started_again_has_lost_nothing_and_done_nothing_twice(
    sites: Sites, foundation: str, case: Case, time: int
) -> None:
    site = sites[foundation]
    site.start_all()
    scenario = case.scenario(site, f"{foundation}, {case.name}, {time}: ")
    scenario.prepare()
    victim = scenario.site.start(*case.command, crash=(case.point, time % case.most_calls + 1))
    scenario.work_until(lambda: not victim.running)
    victim.assert_crashed()
    if case.command[0] == "run":
        site.start(*case.command)
    scenario.check()
    assert make_message_counter(site.settings)()["dead"] == 0


def test_a_crash_point_says_that_its_function_was_renamed() -> None:
    with pytest.raises(AssertionError, match=r"no function service\.receiver\.app:renamed; give its crash point"):
        after("service.receiver.app:renamed").require()
