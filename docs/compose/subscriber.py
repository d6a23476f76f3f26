"""A downstream system of compose.yaml: takes webhooks, believes only signed ones, and acts on each event once.

Standard Webhooks has libraries for most languages; this is the Python one, on the standard library's HTTP server.
"""

import json
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

SECRET_FILE = Path("/run/secrets/shop_webhook_secret")
ADDRESS = ("0.0.0.0", 8000)  # noqa: S104 - its network has nobody else in it
MAX_BODY_BYTES = 64 * 1024


class Shop:
    """What this system knows of its orders."""

    def __init__(self) -> None:
        # A real one keeps both in its database: the ids under a unique key, in the transaction that acts on the event.
        self._seen: set[str] = set()
        self._sequences: dict[str, int] = {}
        self._lock = Lock()

    def take(self, event: dict[str, Any]) -> str:
        """Act on an event, and say what was done: `applied`, or why nothing was."""
        if event["type"] == "payment.test":
            return "a test"
        order, sequence = event["subject"], event["data"]["sequence"]
        with self._lock:
            if event["id"] in self._seen:
                return "repeated"
            self._seen.add(event["id"])
            if sequence < self._sequences.get(order, 0):
                return "overtaken"
            self._sequences[order] = sequence
            return "applied"


class Handler(BaseHTTPRequestHandler):
    """`POST /payment-events`; any GET answers that it lives."""

    protocol_version = "HTTP/1.1"
    shop = Shop()
    webhook: Webhook

    def do_GET(self) -> None:
        """Say that it lives."""
        self._answer(204)

    def do_POST(self) -> None:
        """Take one event. Anything but 2xx has it sent again."""
        body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), MAX_BODY_BYTES))
        try:
            self.webhook.verify(body, dict(self.headers.items()))
        except WebhookVerificationError:
            self._answer(401)
            return
        event = json.loads(body)
        line = json.dumps({"done": self.shop.take(event), "type": event["type"], "id": event["id"]})
        sys.stdout.write(line + "\n")
        self._answer(204)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the events are the log."""

    def _answer(self, status: int) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", "0")
        self.end_headers()


def main() -> None:
    """Serve until SIGTERM."""
    Handler.webhook = Webhook(SECRET_FILE.read_text().strip())
    server = ThreadingHTTPServer(ADDRESS, Handler)
    # shutdown() waits for the loop that this very thread runs.
    signal.signal(signal.SIGTERM, lambda *_: Thread(target=server.shutdown).start())
    server.serve_forever()
    server.server_close()


if __name__ == "__main__":
    main()
