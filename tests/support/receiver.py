"""A receiver as a process, on the embedded queue or on RabbitMQ: `python -m tests.support.receiver`."""

import argparse
import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

from service.config.secrets import Secret
from service.config.settings import Acknowledgement, MerchantSettings, ReceiverSettings, TokenKey
from service.domain.claims import Trust
from service.messaging.contract import AsyncPublisher
from service.messaging.rabbitmq.publisher import RabbitPublisher
from service.messaging.sqlite.embedded import EmbeddedPublisher
from service.messaging.sqlite.queue import EmbeddedQueue
from service.runtime.log_stream import LineCounts
from service.runtime.logs import configure_logs
from service.runtime.metrics.logs import LogMetrics
from service.runtime.metrics.receiver import ReceiverMetrics
from service.web.server import ReceiverServer

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
    ).run()


if __name__ == "__main__":
    main()
