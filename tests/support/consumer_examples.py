"""The examples of the consumer's guide as processes, and the books that they keep."""

import json
import os
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tests.support.downstream import WEBHOOK_SECRET
from tests.support.http import answers
from tests.support.ports import find_free_port
from tests.support.processes import Process, Processes

_EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

#: (biz_order_no, 1 for a payment that was booked and -1 for one that was taken back), in the order of booking.
Bookings = Sequence[tuple[str, int]]


class QueueExample:
    """`orders_by_queue.py`: takes events from a queue of its own into a SQLite file."""

    def __init__(self, *, processes: Processes, amqp_url: str, folder: Path) -> None:
        self._book = folder / "book.sqlite3"
        self.process: Process = processes.start_command(
            sys.executable,
            _EXAMPLES / "orders_by_queue.py",
            environment={"AMQP_URL": amqp_url, "BOOK": str(self._book)},
            name="orders_by_queue",
        )

    def wait_until_ready(self) -> None:
        """Wait until its queue is bound."""
        self.process.wait_until(lambda: "waiting for events" in self.process.output)

    @property
    def bookings(self) -> Bookings:
        with closing(sqlite3.connect(self._book)) as book:
            return book.execute("SELECT biz_order_no, direction FROM bookings ORDER BY rowid").fetchall()

    def count(self, outcome: str) -> int:
        """How often it said so of an event."""
        return self.process.output.count(f": {outcome}\n")


class WebhookExample:
    """`orders-by-webhook.mjs`: takes signed webhooks into a journal."""

    def __init__(self, *, processes: Processes, folder: Path) -> None:
        port = find_free_port()
        self.url = f"http://127.0.0.1:{port}/"
        self.journal = folder / "book.jsonl"
        self.process: Process = processes.start_command(
            "node",
            _EXAMPLES / "orders-by-webhook.mjs",
            environment={
                "WEBHOOK_SECRETS": f"whsec_{'A' * 40} {WEBHOOK_SECRET}",
                "BOOK": str(self.journal),
                "PORT": str(port),
                "PATH": os.environ["PATH"],
            },
            name="orders-by-webhook",
        )

    def wait_until_ready(self) -> None:
        """Wait until it answers."""
        self.process.wait_until(lambda: answers(self.url, status=405))

    @property
    def bookings(self) -> Bookings:
        entries = [json.loads(line) for line in self.journal.read_text().splitlines()]
        return [(json.loads(one["order"])[1], one["direction"]) for one in entries if one["direction"]]

    def count(self, outcome: str) -> int:
        """How often it said so of an event."""
        return self.process.output.count(f": {outcome}\n")
