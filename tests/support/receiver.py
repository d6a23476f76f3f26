"""A receiver as a process (`python -m tests.support.receiver`), on either queue, and callbacks for it."""

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import md5
from pathlib import Path

from service.config.secrets import Secret
from service.config.settings import Acknowledgement, MerchantSettings, ReceiverSettings, TokenKey
from service.domain.claims import Trust
from service.gateway.notify_tokens import NotifyTokenKey, NotifyTokens
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SentCallback:
    """One request to the receiver."""

    path: str
    body: bytes

    @property
    def token(self) -> str:
        return self.path.rpartition("/")[2]


def signed_body(fields: Mapping[str, str]) -> bytes:
    """The fields and their sign as compact JSON, whose keys are sorted."""
    canonical = json.dumps(dict(sorted(fields.items())), separators=(",", ":"))
    return json.dumps({**fields, "sign": md5(canonical.encode()).hexdigest()}, separators=(",", ":")).encode()


def callback(biz_order_no: str, *, merchant: str = "by-capability", **changed: str) -> SentCallback:
    """A success of the order, on the address that was minted for it."""
    fields = {
        "biz_order_no": biz_order_no,
        "pay_order_no": f"pay-{biz_order_no}",
        "order_type": "single_withhold",
        "pay_type": "withhold",
        "pay_status": "success",
        "pay_time": "2026-07-01 12:00:00",
        "channel_response": "approved",
    }
    return SentCallback(path=minted_path(merchant, biz_order_no), body=signed_body({**fields, **changed}))


def minted_path(merchant: str, biz_order_no: str) -> str:
    """The notify_url's path for one order."""
    key = NotifyTokenKey(kid=TOKEN_KEY.kid, secret=TOKEN_KEY.key.reveal().encode())
    return f"/notify/{merchant}/{NotifyTokens(merchant=merchant, keys=[key]).mint(biz_order_no)}"


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
