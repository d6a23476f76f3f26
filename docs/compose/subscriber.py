"""A downstream system for compose.yaml: it accepts only signed webhooks and acts on each event once.

Standard Webhooks has libraries for most languages. This uses the Python one, and the standard library's HTTP server.
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
ADDRESS = ("0.0.0.0", 8000)  # noqa: S104 - nobody else is in its network
MAX_BODY_BYTES = 64 * 1024


class Shop:
    """What this system knows about its orders."""

    def __init__(self) -> None:
        # A real system keeps both in its database: the ids under a unique key, in the transaction of the effect.
        self._seen: set[str] = set()
        self._sequences: dict[str, int] = {}
        self._lock = Lock()

    def take(self, event: dict[str, Any]) -> str:
        """Act on an event, and return what was done: `applied`, or why nothing was done."""
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
    """`POST /payment-events`; any GET is a health check."""

    protocol_version = "HTTP/1.1"
    shop = Shop()
    webhook: Webhook

    def do_GET(self) -> None:
        """Answer a health check."""
        self._answer(204)

    def do_POST(self) -> None:
        """Accept one event. After any answer but 2xx, it is sent again."""
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
        """Log nothing: the events are the log."""

    def _answer(self, status: int) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", "0")
        self.end_headers()


def main() -> None:
    """Serve until SIGTERM."""
    Handler.webhook = Webhook(SECRET_FILE.read_text().strip())
    server = ThreadingHTTPServer(ADDRESS, Handler)
    # shutdown() waits for the loop in this thread, so it needs another thread.
    signal.signal(signal.SIGTERM, lambda *_: Thread(target=server.shutdown).start())
    server.serve_forever()
    server.server_close()


if __name__ == "__main__":
    main()
