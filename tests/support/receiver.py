"""A receiver as a process (`python -m tests.support.receiver`), on either queue, and callbacks for it."""

import argparse
import asyncio
import http.client
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from service.config.secrets import Secret
from service.config.settings import Acknowledgement, MerchantSettings, ReceiverSettings, TokenKey
from service.domain.claims import Trust
from service.messaging.codec import CLAIM_V1, REFUSALS_V1, decode_claim, decode_refusals
from service.messaging.interface import AsyncPublisher, Message, Subscriber
from service.messaging.rabbitmq.publisher import RabbitPublisher
from service.messaging.sqlite.queue import EmbeddedPublisher, EmbeddedQueue
from service.receiver.server import ReceiverServer
from service.runtime.log_stream import LineCounts
from service.runtime.logs import configure_logs
from service.runtime.metrics.logs import LogMetrics
from service.runtime.metrics.receiver import ReceiverMetrics
from service.runtime.tracing import Tracing
from tests.support.callbacks import Callback, mint_token
from tests.support.processes import Process
from tests.support.waiting import HANGS_AFTER_SECONDS

#: Mints the tokens of every merchant below.
TOKEN_KEY = TokenKey(kid="k1", key=Secret("a key for tests only, of 32 bytes or more"))


def merchants() -> dict[str, MerchantSettings]:
    """One merchant for each trust that can be required, and one that requires a token besides."""
    trusts = {
        "by-checksum": Trust.CHECKSUM,
        "by-capability": Trust.CAPABILITY,
        "by-query": Trust.QUERIED,
        "by-query-and-token": Trust.QUERIED,
    }
    return {
        slug: MerchantSettings(
            slug=slug,
            pay_types=frozenset({"withhold"}),
            amount_unit="yuan",
            configured_trust=trust,
            require_token=slug == "by-query-and-token",
            token_keys=[TOKEN_KEY],
            acknowledgement=Acknowledgement(body=f"success {slug}", content_type="text/plain"),
        )
        for slug, trust in trusts.items()
    }


def callback(biz_order_no: str, *, merchant: str = "by-capability", **changed: str) -> Callback:
    """A success of the order, on the address that was minted for it."""
    token = mint_token(kid=TOKEN_KEY.kid, key=TOKEN_KEY.key.reveal(), merchant=merchant, biz_order_no=biz_order_no)
    return Callback(
        biz_order_no=biz_order_no, merchant=merchant, token=token, changes={"pay_type": "withhold", **changed}
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver answered."""

    status: int
    body: bytes


class ReceiverProcess:
    """A receiver that runs as a process, and the queue behind it."""

    def __init__(self, *, process: Process, port: int, subscribe: Callable[[], Subscriber]) -> None:
        self.process = process
        self.port = port
        self._subscribe = subscribe

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANGS_AFTER_SECONDS)

    def ask(self, method: str, path: str, body: bytes = b"") -> Answer:
        connection = self.connect()
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return Answer(response.status, response.read())
        finally:
            connection.close()

    def post(self, sent: Callback) -> Answer:
        return self.ask("POST", sent.path, sent.body)

    def is_ready(self) -> bool:
        try:
            return self.ask("GET", "/readyz").status == 200
        except OSError:
            return False

    def queued_orders(self, at_least: int) -> list[str]:
        """The order numbers in the queue, taken out."""
        claims = (message for message in self._take_out(at_least) if message.type == CLAIM_V1)
        return [decode_claim(message).biz_order_no for message in claims]

    def queued_refusals(self, at_least: int) -> Counter[tuple[str, str]]:
        """The refusals told of in `at_least` messages or more, by merchant and reason, each process's last word."""
        last = {
            (count.process, count.merchant, count.reason): count.callbacks
            for message in self._take_out(at_least)
            if message.type == REFUSALS_V1
            for count in decode_refusals(message)
        }
        counted: Counter[tuple[str, str]] = Counter()
        for (_, merchant, reason), callbacks in last.items():
            counted[merchant, reason] += callbacks
        return counted

    def _take_out(self, at_least: int) -> list[Message]:
        subscriber = self._subscribe()
        found: list[Message] = []
        try:
            while deliveries := subscriber.receive(
                max_messages=100, wait_seconds=0.3 if len(found) >= at_least else HANGS_AFTER_SECONDS
            ):
                found += [delivery.message for delivery in deliveries]
                subscriber.acknowledge(deliveries)
        finally:
            subscriber.close()
        return found


def _server_with(worker_class: str | None) -> type[ReceiverServer]:
    class OtherServer(ReceiverServer):
        def load_config(self) -> None:
            super().load_config()
            self.cfg.set("worker_class", worker_class)
            self.cfg.set("threads", 8)

    return ReceiverServer if worker_class is None else OtherServer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bind", required=True)
    parser.add_argument("--queue-file", type=Path)
    parser.add_argument("--amqp-url", action="append", default=[])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--hops", type=int, default=0)
    parser.add_argument("--metrics-bind", default="")
    parser.add_argument("--request-timeout-seconds", type=float, default=5.0)
    parser.add_argument("--worker-class", help="another of gunicorn's workers, to compare with")
    options = parser.parse_args()

    def make_publisher(_metrics: ReceiverMetrics, loop: asyncio.AbstractEventLoop) -> AsyncPublisher:
        if options.amqp_url:
            publisher = RabbitPublisher(loop=loop, urls=options.amqp_url, connection_name="receiver")
            publisher.start()
            return publisher
        return EmbeddedPublisher(queue=EmbeddedQueue(options.queue_file), loop=loop)

    counts = LineCounts()
    configure_logs(stream=sys.stdout, human=False, counts=counts)
    server = _server_with(options.worker_class)
    server(
        merchants=merchants(),
        make_publisher=make_publisher,
        clock=lambda: datetime.now(UTC),
        settings=ReceiverSettings(
            bind=options.bind,
            workers=options.workers,
            trusted_proxy_hops=options.hops,
            metrics_bind=options.metrics_bind,
            request_timeout_seconds=options.request_timeout_seconds,
        ),
        log_metrics=LogMetrics(lost=counts.lost, escaped=counts.escaped),
        make_tracing=Tracing,
    ).run()


if __name__ == "__main__":
    main()
