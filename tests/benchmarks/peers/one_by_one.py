"""A ledger by hand: one transaction of SQLAlchemy and one ack for each message. Runs until it is ended."""

import hashlib
import json
import os

import pika
from sqlalchemy import Connection, text
from tables import make_engine


def main() -> None:
    engine = make_engine()
    channel = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])).channel()
    channel.queue_declare("callbacks", durable=True, arguments={"x-queue-type": "quorum"})
    channel.basic_qos(prefetch_count=100)
    for method, _, body in channel.consume("callbacks"):
        assert method is not None
        assert body is not None
        with engine.begin() as connection:
            record(connection, json.loads(body))
        channel.basic_ack(method.delivery_tag)


def record(connection: Connection, callback: dict[str, str]) -> None:
    body, order = json.dumps(callback), callback["biz_order_no"]
    digest = hashlib.sha256(json.dumps(callback, sort_keys=True).encode()).hexdigest()
    new = connection.execute(
        text(
            "INSERT INTO claims (digest, biz_order_no, body) VALUES (:digest, :order, :body)"
            " ON CONFLICT DO NOTHING RETURNING id"
        ),
        {"digest": digest, "order": order, "body": body},
    ).first()
    if new is None:
        return
    known = connection.execute(
        text("SELECT status FROM orders WHERE biz_order_no = :order FOR UPDATE"), {"order": order}
    ).first()
    if known is None:
        connection.execute(
            text("INSERT INTO orders VALUES (:order, :status, :pay_order_no, 1, now())"),
            {"order": order, "status": callback["pay_status"], "pay_order_no": callback["pay_order_no"]},
        )
    elif known.status in ("success", "fail"):
        return
    else:
        connection.execute(
            text("UPDATE orders SET status = :status, sequence = sequence + 1 WHERE biz_order_no = :order"),
            {"order": order, "status": callback["pay_status"]},
        )
    connection.execute(
        text("INSERT INTO outbox (biz_order_no, sequence, body) VALUES (:order, 1, :body)"),
        {"order": order, "body": body},
    )


if __name__ == "__main__":
    main()
