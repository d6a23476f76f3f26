"""The rendered receiver, run from its own manifest by podman: it answers, and it goes in good order."""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from service.messaging.codec import CLAIM_V1, decode_claim
from service.messaging.rabbitmq.subscriber import RabbitSubscriber
from service.messaging.rabbitmq.topology import declare
from tests.support.callbacks import Callback, GatewaySender, mint_token
from tests.support.chart import find, render
from tests.support.chart_release import PlayedPod
from tests.support.containers import ContainerTools, Image
from tests.support.messages import count_messages, rabbit_publisher
from tests.support.processes import answers
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually

# Building the image is not what the limit is for.
pytestmark = pytest.mark.timeout(240, func_only=True)

_TOKEN_KEY = "the token key of acme, for tests only"

Play = Callable[[str, str], PlayedPod]


@pytest.fixture
def address() -> str:
    """A loopback address that nobody else listens on: the chart decides the ports."""
    return f"127.{random.randint(1, 254)}.{random.randint(1, 254)}.{random.randint(1, 254)}"


@pytest.fixture
def url(address: str) -> str:
    return f"http://{address}:8080"


@pytest.fixture
def sender(url: str) -> Iterator[GatewaySender]:
    sender = GatewaySender(url=url)
    yield sender
    sender.close()


@pytest.fixture
def play(container_tools: ContainerTools, image: Image, tmp_path: Path, address: str, url: str) -> Iterator[Play]:
    """Renders the receiver with a set of values and a broker, plays its manifest, and waits until it is ready."""
    with ExitStack() as pods:

        def play(values: str, amqp_url: str) -> PlayedPod:
            tmp_path.chmod(0o755)  # the container's user is nobody here
            manifests = render(values, overrides={"bindAddress": address})
            pod = PlayedPod(
                tools=container_tools,
                image=image.name,
                workload=find(manifests, "StatefulSet" if values == "spool" else "Deployment", "-receiver"),
                config_map=find(manifests, "ConfigMap", "-settings"),
                secrets={
                    "payment-callbacks-broker/url": amqp_url,
                    "payment-callbacks-acme/token-key": _TOKEN_KEY,
                },
                folder=tmp_path,
            )
            pods.enter_context(pod)
            eventually(lambda: answers(url + probe_path(pod, "readinessProbe")), why=lambda: pod.output)
            return pod

        yield play


def probe_path(pod: PlayedPod, probe: str) -> str:
    """Where Kubernetes would ask."""
    request = pod.container[probe]["httpGet"]
    (port,) = [port for port in pod.container["ports"] if port["name"] == request["port"]]
    assert port["containerPort"] == 8080
    path: str = request["path"]
    return path


def callback(biz_order_no: str) -> Callback:
    """A success of the order on its own address."""
    token = mint_token(kid="k1", key=_TOKEN_KEY, merchant="acme", biz_order_no=biz_order_no)
    return Callback(biz_order_no=biz_order_no, token=token)


def test_it_confirms_a_callback_as_it_stands_in_the_manifest_and_ends_in_good_order(
    play: Play, sender: GatewaySender, url: str, address: str, amqp_url: str
) -> None:
    pod = play("minimal", amqp_url)
    assert sender.send(callback("DK1")).acknowledged
    assert count_messages(amqp_url) == 1
    assert answers(url + probe_path(pod, "livenessProbe"))
    assert answers(f"http://{address}:9090/metrics")
    assert_restricted(pod.inspect())
    assert pod.stop() == 0


def test_without_its_broker_it_stays_alive_and_ready_and_says_not_now(
    play: Play, sender: GatewaySender, url: str
) -> None:
    pod = play("minimal", "amqp://guest:guest@127.0.0.1:9/")
    assert sender.send(callback("DK1")).status == 503
    assert answers(url + probe_path(pod, "livenessProbe"))
    assert answers(url + probe_path(pod, "readinessProbe"))
    assert pod.stop() == 0


def test_with_the_spool_it_keeps_callbacks_on_its_volume_and_is_drained_before_it_goes(
    play: Play, sender: GatewaySender, own_rabbitmq: RabbitMQ
) -> None:
    declare([own_rabbitmq.url], timeout_seconds=10)  # as the ledger does, who is not here
    own_rabbitmq.stop()
    pod = play("spool", own_rabbitmq.url)
    assert sender.send(callback("DK1")).acknowledged
    own_rabbitmq.start()
    assert "The spool is empty." in pod.execute(*pod.container["lifecycle"]["preStop"]["exec"]["command"])
    assert pod.stop() == 0
    assert queued_orders(own_rabbitmq.url) == ["DK1"]


def queued_orders(url: str) -> list[str]:
    """The order numbers in the queue, among reports of the spool's depth."""
    never_used = rabbit_publisher(url)
    subscriber = RabbitSubscriber(urls=[url], connection_name="test", prefetch=200, dead_letter_publisher=never_used)
    found = []
    try:
        while deliveries := subscriber.receive(max_messages=100, wait_seconds=3):
            found += [one.message for one in deliveries]
    finally:
        subscriber.close()
    return [decode_claim(message).biz_order_no for message in found if message.type == CLAIM_V1]


def assert_restricted(about: dict[str, Any]) -> None:
    """That podman did what the manifest says."""
    assert about["HostConfig"]["ReadonlyRootfs"] is True
    assert about["EffectiveCaps"] in (None, [])
    assert about["BoundingCaps"] in (None, [])
    assert "no-new-privileges" in about["HostConfig"]["SecurityOpt"]
    assert about["Config"]["User"].partition(":")[0] == "10001"
