"""The servers that the other tests rely on."""

import pika
import pytest
import sqlalchemy as sa

from tests.support.postgresql import Database
from tests.support.rabbitmq import RabbitMQ


def publish(url: str, *, queue: str, body: bytes) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2), mandatory=True)
    connection.close()


def get(url: str, *, queue: str) -> bytes | None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        return connection.channel().basic_get(queue, auto_ack=True)[2]
    finally:
        connection.close()


def test_a_killed_broker_comes_back_on_the_same_port_with_its_confirmed_messages(own_rabbitmq: RabbitMQ) -> None:
    publish(own_rabbitmq.url, queue="kept", body=b"confirmed")

    own_rabbitmq.kill()
    own_rabbitmq.start()

    assert get(own_rabbitmq.url, queue="kept") == b"confirmed"


def test_a_stopped_broker_comes_back_and_the_next_test_finds_it_empty(own_rabbitmq: RabbitMQ) -> None:
    own_rabbitmq.restart()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="NOT_FOUND"):
        get(own_rabbitmq.url, queue="kept")


def test_every_virtual_host_of_the_shared_broker_is_empty(rabbitmq: RabbitMQ, amqp_url: str) -> None:
    publish(rabbitmq.create_virtual_host(), queue="elsewhere", body=b"")
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="NOT_FOUND"):
        get(amqp_url, queue="elsewhere")


def test_a_killed_postgresql_comes_back_with_what_was_committed(own_postgresql: Database) -> None:
    engine = sa.create_engine(own_postgresql.url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE kept AS SELECT 1 AS number"))
    engine.dispose()

    own_postgresql.kill()
    own_postgresql.start()

    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT number FROM kept")) == 1
    engine.dispose()


def test_every_test_gets_an_empty_database(postgresql: Database) -> None:
    engine = sa.create_engine(postgresql.url)
    assert sa.inspect(engine).get_table_names() == []
    engine.dispose()
