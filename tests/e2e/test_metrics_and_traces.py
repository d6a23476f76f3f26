"""What watches the service sees all of it: every metric that alerts and dashboard name, and one trace in every log."""

import json
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import urllib3
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.support.callbacks import Callback
from tests.support.deployment import Deployment, Place
from tests.support.downstream import Downstream
from tests.support.gateway import AES_KEY, AskedGateway
from tests.support.processes import answers, find_free_port
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

_FILES = Path(__file__).parents[2] / "helm" / "payment-callbacks" / "files"
_ROLES = ("receiver", "ledger", "inquirer", "dispatcher")
_TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
_ASKED = """
[merchants.asked]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
token_keys = [{{ kid = "k1", key = "a token key of asked, for tests only" }}]
gateway = {{ url = "{url}", ua = "ASKED", aes_key = "{key}", timeout_seconds = 5.0 }}
"""
_SUFFIX = re.compile(r"_(bucket|sum|count)$")


class Watched:
    """A deployment each of whose roles has a port for metrics."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.ports = {role: find_free_port() for role in (*_ROLES, "api")}
        text = deployment.settings_file.read_text() + "\n[inquirer]\npoll_seconds = 0.1\n"
        for role in _ROLES:
            text = text.replace(f"[{role}]\n", f'[{role}]\nmetrics_bind = "127.0.0.1:{self.ports[role]}"\n')
        token = "0123456789abcdef0123456789abcdef"
        text += f'\n[api]\nbind = "127.0.0.1:{self.ports["api"]}"\n[[api.tokens]]\nname = "test"\ntoken = "{token}"\n'
        text += 'scopes = ["read"]\n'
        deployment.settings_file.write_text(text)

    def scrape(self, role: str) -> str:
        url = f"http://127.0.0.1:{self.ports[role]}/metrics"
        return urllib3.request("GET", url, retries=urllib3.Retry(50, backoff_factor=0.1)).data.decode()

    def exported(self) -> set[str]:
        text = "".join(self.scrape(role) for role in self.ports)
        return set(re.findall(r"^# TYPE (payment_callbacks_\w+) ", text, re.MULTILINE))

    def series(self) -> set[str]:
        """Every series of every role: its name and labels."""
        text = "\n".join(self.scrape(role) for role in self.ports)
        return {line.rpartition(" ")[0] for line in text.splitlines() if line.startswith("payment_callbacks_")}

    def total(self, role: str, metric: str, **labels: str) -> float:
        """The sum of a role's series of one name that have these labels."""
        return sum(sample.value for sample in self._samples(role, metric) if labels.items() <= sample.labels.items())

    def values(self, role: str, metric: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The values of a role's series of one name, by these labels."""
        samples = self._samples(role, metric)
        return {tuple(sample.labels[label] for label in labels): sample.value for sample in samples}

    def _samples(self, role: str, metric: str) -> Sequence[Sample]:
        families = text_string_to_metric_families(self.scrape(role))
        return [sample for family in families for sample in family.samples if sample.name == metric]

    def lines(self, role: str, event: str, **fields: object) -> list[dict[str, object]]:
        """The role's log lines of one event that have these fields."""
        output = self.deployment.role(role).output.splitlines()
        lines = [json.loads(line) for line in output if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if {"event": event, **fields}.items() <= line.items()]


@pytest.fixture(scope="module")
def _standing(
    find_place: Callable[[], Place], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Watched, Downstream]]:
    with (
        Downstream() as shop,
        AskedGateway(lambda _order: "success", pay_type="baofoo_001") as gateway,
        Deployment(
            folder=tmp_path_factory.mktemp("watched"),
            place=find_place(),
            downstreams={"shop": shop},
            more_settings=_ASKED.format(url=gateway.url, key=AES_KEY),
        ) as deployment,
    ):
        deployment.prepare()
        watched = Watched(deployment)
        deployment.start("receiver", "inquirer", "dispatcher", "api")
        deployment.start("ledger", module="tests.support.hasty_roles")
        deployment.wait_until_receiving()
        yield watched, shop


@pytest.fixture
def watched(_standing: tuple[Watched, Downstream]) -> Watched:
    """A deployment that tests share: only "acme" and "asked" are called back, and only order numbers tell tests apart.

    "asked" believes nobody but its gateway, which says of every order that it was paid.
    """
    return _standing[0]


@pytest.fixture
def deployment(watched: Watched) -> Deployment:
    """That of `watched`."""
    return watched.deployment


@pytest.fixture
def shop(_standing: tuple[Watched, Downstream]) -> Downstream:
    """The webhook endpoint of `watched`."""
    return _standing[1]


def _named(file: str) -> set[str]:
    return {_SUFFIX.sub("", name) for name in re.findall(r"payment_callbacks_\w+", (_FILES / file).read_text())}


def _send_no_http(deployment: Deployment) -> None:
    host, _, port = deployment.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=HANGS_AFTER_SECONDS) as client:
        client.sendall(b"no http at all\r\n\r\n")
        client.recv(1024)


def test_every_metric_that_alerts_and_dashboard_name_is_exported(
    watched: Watched, deployment: Deployment, shop: Downstream, order: str
) -> None:
    assert deployment.sender.send(deployment.callback(order)).acknowledged
    _send_no_http(deployment)
    eventually(lambda: shop.about(order))
    wanted = _named("alerts.yaml") | _named("dashboard.json")
    eventually(lambda: wanted <= watched.exported(), why=lambda: wanted - watched.exported())


def test_a_consumer_has_metrics_once_the_schema_is_there_so_that_who_waits_for_it_replaces_nobody(
    servers: Place, own_shop: Downstream, tmp_path: Path
) -> None:
    with Deployment(folder=tmp_path, place=servers, downstreams={"shop": own_shop}) as deployment:
        watched = Watched(deployment)
        consumers = ("ledger", "inquirer", "dispatcher")
        deployment.start(*consumers)
        urls = {role: f"http://127.0.0.1:{watched.ports[role]}/metrics" for role in consumers}
        for role, url in urls.items():
            eventually(watched.lines, role, "waiting_to_start")
            assert not answers(url)
        deployment.prepare()
        for url in urls.values():
            eventually(partial(answers, url))


def test_one_trace_joins_the_callback_to_its_webhook(
    watched: Watched, deployment: Deployment, shop: Downstream, order: str
) -> None:
    assert deployment.sender.send(deployment.callback(order)).acknowledged
    (event,) = eventually(lambda: shop.about(order))
    trace_id = event.headers["traceparent"].split("-")[1]
    assert event.envelope["traceparent"] == event.headers["traceparent"]
    for role, said, about_it in (
        ("receiver", "callback_acknowledged", {"biz_order_no": order}),
        ("ledger", "claim_recorded", {"biz_order_no": order}),
        ("dispatcher", "event_delivered", {"event_id": event.id}),
    ):
        # One line per endpoint of the dispatcher's.
        lines = eventually(partial(watched.lines, role, said, **about_it))
        assert {line["trace_id"] for line in lines} == {trace_id}, role


def test_the_trace_of_a_callback_that_is_not_believed_goes_on_through_the_question_to_the_webhook(
    watched: Watched, deployment: Deployment, shop: Downstream, order: str
) -> None:
    sent = Callback(biz_order_no=order, merchant="asked", traceparent=f"00-{_TRACE_ID}-00f067aa0ba902b7-01")
    assert deployment.sender.send(sent).acknowledged
    (event,) = eventually(lambda: shop.about(order))
    assert event.envelope["data"]["trust"] == "query"
    # What the gateway sent, flags and all: no spans are made here.
    assert event.headers["traceparent"] == event.envelope["traceparent"] == sent.traceparent
    for role, said, about_it in (
        ("receiver", "callback_acknowledged", {"biz_order_no": order}),
        ("ledger", "claim_recorded", {"biz_order_no": order}),
        ("inquirer", "gateway_asked", {"biz_order_no": order}),
        ("dispatcher", "event_delivered", {"event_id": event.id}),
    ):
        lines = eventually(partial(watched.lines, role, said, **about_it))
        assert {line["trace_id"] for line in lines} == {_TRACE_ID}, role


def test_a_flood_of_made_up_words_is_counted_to_the_last_and_makes_no_new_series(watched: Watched) -> None:
    """By two workers, as everywhere: what each has counted is in one sum."""
    _flood(watched, _made_up(watched.deployment, "first"))
    # The ledger looks now and then at what waits for a person, and then shows each kind of it.
    eventually(lambda: watched.total("ledger", "payment_callbacks_attention_items", kind="quarantined-claim"))
    series = watched.series()
    _flood(watched, _made_up(watched.deployment, "second"))
    assert watched.series() == series


def _made_up(deployment: Deployment, word: str) -> Sequence[Callback]:
    """Callbacks in which everything that a stranger may choose is of his own making, some of them twenty times over."""
    made = []
    for number in range(20):
        name = f"{word}{number}"
        changes: Sequence[Mapping[str, str]] = [
            {"pay_type": name}, {"order_type": name}, {"pay_status": name}, {name: name},
            {"channel_response": f"{name} 6222021234567890128 张三 13800138000"},
        ]  # fmt: skip
        made += [deployment.callback(f"{name}-{place}", changes=change) for place, change in enumerate(changes)]
        made += [
            Callback(biz_order_no=name, merchant=name),
            Callback(biz_order_no=name, merchant=name, token=name),
            Callback(biz_order_no=name, token=name),
            Callback(biz_order_no=name, token=f"{name}.{name}.{name}"),
            replace(deployment.callback(name), signed_by=partial(_say, name)),
            replace(deployment.callback(name), sent_by=partial(_say, name)),
        ]
    return made


def _say(text: str, _fields: Mapping[str, str]) -> str:
    return text


def _flood(watched: Watched, callbacks: Sequence[Callback]) -> None:
    """Send them, and wait until every role has counted what reached it."""
    received = "payment_callbacks_received_total"
    received_before = watched.total("receiver", received)
    taken_before = watched.total("receiver", received, outcome="acknowledged")
    answers = watched.deployment.sender.send_all(callbacks)
    assert {answer.status for answer in answers} == {200, 400}
    assert watched.total("receiver", received) - received_before == len(callbacks)
    taken = watched.total("receiver", received, outcome="acknowledged")
    assert taken - taken_before == sum(answer.acknowledged for answer in answers)
    eventually(lambda: watched.total("ledger", "payment_callbacks_claims_recorded_total") == taken)

    def all_delivered() -> bool:
        moved = sum(watched.total(role, "payment_callbacks_transitions_total") for role in ("ledger", "inquirer"))
        delivered = "payment_callbacks_deliveries_total"
        return watched.total("dispatcher", delivered, endpoint="shop", outcome="delivered") == moved

    eventually(all_delivered)


def test_no_metric_tells_an_order(watched: Watched, deployment: Deployment, shop: Downstream, order: str) -> None:
    assert deployment.sender.send(deployment.callback(order)).acknowledged
    eventually(lambda: shop.about(order))
    for role in watched.ports:
        assert order not in watched.scrape(role)


def test_the_last_word_of_each_gateway_is_told_by_the_ledger_which_always_runs(
    watched: Watched, deployment: Deployment, order: str
) -> None:
    assert deployment.sender.send(deployment.callback(order)).acknowledged

    def last_claims() -> dict[tuple[str, ...], float]:
        return watched.values("ledger", "payment_callbacks_last_claim_timestamp_seconds", "merchant", "source")

    eventually(lambda: last_claims().get(("acme", "callback")))
    last = last_claims()
    assert abs(time.time() - last.pop(("acme", "callback"))) < 600
    for source in ("callback", "query"):
        last.pop(("asked", source))
    never = [("ask", "callback"), ("ask", "query"), ("open", "callback"), ("other", "callback")]
    assert last == dict.fromkeys(never, 0.0)
