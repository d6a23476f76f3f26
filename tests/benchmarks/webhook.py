"""A downstream system, as a process: it answers webhooks at once, after a pause, or never.

`python -m tests.benchmarks.webhook PORT SECONDS`, where SECONDS may be `hang`. `GET /counts` says how many events came
and how many different ones, `GET /times` when each came first.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3

from tests.benchmarks.callbacks import without_proxies
from tests.support.processes import Process, answers, find_free_port

_NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


class Webhook:
    """Asks the process."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._http = urllib3.PoolManager()
        #: Where it takes events.
        self.url = f"{self._url}/events"

    def count(self) -> int:
        """How many different events have come."""
        return int(self._ask("/counts")["distinct"])

    def check(self, *, total: int, max_repeated: int = 0) -> None:
        """Fail unless so many different events came, each once; at most `max_repeated` may have come again."""
        counts = self._ask("/counts")
        repeated = counts["total"] - counts["distinct"]
        assert counts["distinct"] == total, f"{total} different events were to come: {counts}"
        assert 0 <= repeated <= max_repeated, f"at most {max_repeated} events were to come again: {counts}"

    def first_at(self) -> dict[str, float]:
        """When each event came first, by its id, in seconds of the system's clock."""
        return dict(self._ask("/times"))

    def _ask(self, path: str) -> dict[str, Any]:
        return dict(self._http.request("GET", self._url + path, timeout=10).json())


@contextmanager
def a_webhook(folder: Path, *, pause: str = "0") -> Iterator[Webhook]:
    """Run one that pauses for so many seconds before it answers, or `hang`s."""
    port = find_free_port()
    process = Process(
        name=f"webhook-{port}",
        command=[sys.executable, "-m", "tests.benchmarks.webhook", str(port), pause],
        log_file=folder / f"webhook-{port}.log",
        environment=without_proxies(),
    )
    try:
        process.start()
        process.wait_until(lambda: answers(f"http://127.0.0.1:{port}/counts"))
        yield Webhook(port)
    finally:
        process.kill()


@dataclass(slots=True)
class Received:
    """Events by their id: when each came first."""

    first_at: dict[str, float] = field(default_factory=dict)
    total: int = 0


async def serve(port: int, pause: str) -> None:
    """Listen until the process ends."""
    received = Received()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if request_line.startswith("GET"):
                    writer.write(_describe(received, times=request_line.startswith("GET /times")))
                elif pause == "hang":
                    await asyncio.Event().wait()
                else:
                    event_id = headers.get("webhook-id") or str(json.loads(body)["id"])
                    received.first_at.setdefault(event_id, time.time())
                    received.total += 1
                    if seconds := float(pause):
                        await asyncio.sleep(seconds)
                    writer.write(_NO_CONTENT)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", port, backlog=1000)
    await server.serve_forever()


def _describe(received: Received, *, times: bool) -> bytes:
    counts = {"total": received.total, "distinct": len(received.first_at)}
    body = json.dumps(received.first_at if times else counts).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
