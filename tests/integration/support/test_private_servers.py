"""The servers that the other tests rely on."""

from contextlib import closing

import pika
import pytest
import sqlalchemy as sa

from tests.support.postgresql import Database
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually


def publish(url: str, *, queue: str, body: bytes) -> None:
    with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2), mandatory=True)


def get(url: str, *, queue: str) -> bytes | None:
    with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
        return connection.channel().basic_get(queue, auto_ack=True)[2]


def test_a_killed_broker_comes_back_on_the_same_port_with_its_confirmed_messages(own_rabbitmq: RabbitMQ) -> None:
    publish(own_rabbitmq.url, queue="kept", body=b"confirmed")

    own_rabbitmq.kill()
    own_rabbitmq.start()

    assert get(own_rabbitmq.url, queue="kept") == b"confirmed"


@pytest.mark.parametrize("turn", ["first", "second"])
def test_a_broker_that_was_left_blocked_and_stopped_is_up_and_empty_for_the_next_test(
    own_rabbitmq: RabbitMQ, turn: str
) -> None:
    publish(own_rabbitmq.url, queue="left", body=turn.encode())
    assert get(own_rabbitmq.url, queue="left") == turn.encode()
    publish(own_rabbitmq.url, queue="left", body=b"left behind")

    own_rabbitmq.block_publishers()
    eventually(lambda: "memory" in own_rabbitmq.evaluate("rabbit_alarm:get_alarms()."))
    own_rabbitmq.stop()


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


def test_a_frozen_postgresql_answers_nothing_until_it_is_thawed(own_postgresql: Database) -> None:
    engine = sa.create_engine(own_postgresql.url, connect_args={"connect_timeout": 2})
    own_postgresql.freeze()
    with pytest.raises(sa.exc.OperationalError, match="timeout"):
        engine.connect()

    own_postgresql.thaw()

    engine.connect().close()
    engine.dispose()


def test_every_test_gets_an_empty_database(postgresql: Database) -> None:
    engine = sa.create_engine(postgresql.url)
    assert sa.inspect(engine).get_table_names() == []
    engine.dispose()
