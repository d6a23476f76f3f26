"""Downstream systems, each a process: they write each event to a journal before they accept it.

`python -m tests.chaos.downstreams shop JOURNAL PORT` takes webhooks, `... bus JOURNAL AMQP_URL` has a queue of its own.
After SIGTERM, the second one ends once its queue is empty.
"""

import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pika
from pika.exceptions import AMQPError

from tests.chaos.journal import Journal

#: Written to stdout once an event cannot be missed any more.
READY = "ready"
_EXCHANGE = "payment.status"
_QUEUE = "chaos.events"
_PREFETCH = 50
_QUIET_SECONDS = 1.0


def take_webhooks(journal: Journal, port: int) -> None:
    """Answer every request with 204 once it is in the journal, whatever it says: the accountant judges it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            if len(body) < length:  # the sender was killed in the midst of it
                self.close_connection = True
                return
            journal.write({"at": time.time(), "headers": dict(self.headers.items()), "body": body.decode()})
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that hung up is no error here."""

    server = Server(("127.0.0.1", port), Handler)
    print(READY, flush=True)
    server.serve_forever()


def take_from_queue(journal: Journal, url: str) -> None:
    """Acknowledge every message once it is in the journal. Connects again for as long as it runs."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    while True:
        try:
            connection = pika.BlockingConnection(pika.URLParameters(url))
            channel = connection.channel()
            channel.queue_declare(_QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
            channel.queue_bind(_QUEUE, _EXCHANGE, "#")
            channel.basic_qos(prefetch_count=_PREFETCH)
            print(READY, flush=True)
            for method, _, body in channel.consume(_QUEUE, inactivity_timeout=_QUIET_SECONDS):
                if method is not None and body is not None:
                    journal.write({"at": time.time(), "body": body.decode()})
                    channel.basic_ack(method.delivery_tag)
                elif stop.is_set():
                    connection.close()
                    return
        except AMQPError as error:
            print(f"no broker, or no exchange yet: {error!r}", flush=True)
            time.sleep(0.2)


if __name__ == "__main__":
    kind, path, address = sys.argv[1:]
    if kind == "shop":
        take_webhooks(Journal(Path(path)), int(address))
    else:
        take_from_queue(Journal(Path(path)), address)
