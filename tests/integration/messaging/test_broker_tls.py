"""A broker behind TLS, whose certificate nobody vouches for but the operator's own authority."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.messaging.errors import BrokerUnavailable
from service.messaging.rabbitmq import topology
from tests.support.messages import Connect, Subscribe, make_message
from tests.support.processes import find_free_port
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

_SETTINGS = """\
listeners.ssl.default = 127.0.0.1:{port}
ssl_options.cacertfile = {certificate}
ssl_options.certfile = {certificate}
ssl_options.keyfile = {certificate}
ssl_options.verify = verify_none
"""


@pytest.fixture(scope="module")
def url(certificate: Path) -> Iterator[str]:
    port = find_free_port()
    settings = _SETTINGS.format(port=port, certificate=certificate)
    with RabbitMQ(more_settings=settings) as broker:
        # RabbitMQ 4 listens there a moment after it answers on the other port.
        eventually(lambda: "amqp/ssl" in broker.evaluate("rabbit_networking:active_listeners()."))
        yield f"amqps://guest:guest@127.0.0.1:{port}/%2F"


def test_it_is_used_where_its_authority_is_set_as_the_systems_certificates(
    connect: Connect, subscribe: Subscribe, url: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    topology.declare([url], timeout_seconds=HANGS_AFTER_SECONDS)
    connect(url).publish(make_message("one"), timeout_seconds=HANGS_AFTER_SECONDS)
    [delivery] = subscribe(url).receive(max_messages=10, wait_seconds=HANGS_AFTER_SECONDS)
    assert delivery.message.message_id == "one"


def test_it_is_refused_without_with_a_reason_that_names_the_certificate(connect: Connect, url: str) -> None:
    with pytest.raises(BrokerUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        topology.declare([url], timeout_seconds=HANGS_AFTER_SECONDS)
    publisher = connect(url)
    with pytest.raises(BrokerUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        publisher.publish(make_message("one"), timeout_seconds=HANGS_AFTER_SECONDS)


def test_it_is_refused_under_another_name_than_its_own(
    connect: Connect, url: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    other = url.replace("127.0.0.1", "localhost")
    with pytest.raises(BrokerUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        topology.declare([other], timeout_seconds=HANGS_AFTER_SECONDS)
