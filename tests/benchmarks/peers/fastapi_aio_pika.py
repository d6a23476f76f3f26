"""A receiver on asyncio: FastAPI, and one aio-pika channel with confirms for each of uvicorn's workers."""

import hashlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel


class Callback(BaseModel):
    biz_order_no: str
    pay_order_no: str
    order_type: str
    pay_type: str
    pay_status: str
    pay_time: str
    channel_response: str


@asynccontextmanager
async def connected(app: FastAPI) -> AsyncIterator[None]:
    connection = await aio_pika.connect_robust(os.environ["AMQP_URL"])
    channel = await connection.channel(publisher_confirms=True)
    await channel.declare_queue("callbacks", durable=True, arguments={"x-queue-type": "quorum"})
    app.state.exchange = channel.default_exchange
    yield
    await connection.close()


app = FastAPI(lifespan=connected)


@app.post("/notify/{merchant}/{token}")
async def notify(merchant: str, token: str, request: Request) -> Response:
    body = json.loads(await request.body())
    sign = body.pop("sign")
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    if hashlib.md5(canonical.encode()).hexdigest() != sign:
        return Response("bad sign", 401)
    callback = Callback.model_validate(body).model_dump_json().encode()
    message = aio_pika.Message(callback, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
    await app.state.exchange.publish(message, routing_key="callbacks")
    return Response("success")
