"""A receiver as most people would write it: Flask, and a blocking channel with confirms for each thread."""

import hashlib
import json
import os
import threading
from typing import Any

import pika
from flask import Flask, request
from marshmallow import EXCLUDE, Schema, fields

app = Flask(__name__)
of_thread = threading.local()


class CallbackSchema(Schema):
    class Meta:
        unknown = EXCLUDE

    biz_order_no = fields.Str(required=True)
    pay_order_no = fields.Str(required=True)
    order_type = fields.Str(required=True)
    pay_type = fields.Str(required=True)
    pay_status = fields.Str(required=True)
    pay_time = fields.Str(required=True)
    channel_response = fields.Str(required=True)


schema = CallbackSchema()


@app.post("/notify/<merchant>/<token>")
def notify(merchant: str, token: str) -> tuple[str, int]:
    body = request.get_json()
    sign = body.pop("sign")
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    if hashlib.md5(canonical.encode()).hexdigest() != sign:
        return "bad sign", 401
    callback = json.dumps(schema.load(body)).encode()
    channel().basic_publish("", "callbacks", callback, pika.BasicProperties(delivery_mode=2), mandatory=True)
    return "success", 200


def channel() -> Any:
    """The one of this thread."""
    if not hasattr(of_thread, "channel"):
        connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
        of_thread.channel = connection.channel()
        of_thread.channel.queue_declare("callbacks", durable=True, arguments={"x-queue-type": "quorum"})
        of_thread.channel.confirm_delivery()
    return of_thread.channel
