"""Sends callbacks at a fixed rate, whatever the answers take.

`python -m tests.benchmarks.fixed_rate URL FILE RATE COUNT CONNECTIONS` prints JSON. A latency counts from when the
callback was due: a receiver that stops for a second is charged with all that would have come in that second.
"""

import asyncio
import itertools
import json
import sys
import time
from collections import deque
from pathlib import Path
from urllib.parse import urlsplit

from tests.benchmarks.measuring import percentile

_ANSWER_SECONDS = 10.0


class _Connection:
    """One kept connection; one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def post(self, path: str, body: bytes) -> bool:
        """Whether it was acknowledged."""
        head = f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        self._writer.write(f"{head}\r\n\r\n".encode() + body)
        status_line, *headers = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        length = next(int(line.partition(":")[2]) for line in headers if line.startswith("content-length:"))
        await self._reader.readexactly(length)
        return status_line.split()[1] == "200"

    def is_open(self) -> bool:
        """Whether the server has not closed it meanwhile, as it does with one that was idle for long."""
        return not self._reader.at_eof()

    def close(self) -> None:
        self._writer.close()


async def send(
    host: str, port: int, requests: list[tuple[str, bytes]], *, per_second: float, count: int, connections: int
) -> str:
    """Send `count` of them, and return what came of it as JSON."""
    idle: deque[_Connection] = deque()
    open_at_once = asyncio.Semaphore(connections)
    latencies: list[float] = []
    failed = 0

    async def send_one(path: str, body: bytes, due_at: float) -> None:
        nonlocal failed
        try:
            async with open_at_once, asyncio.timeout(_ANSWER_SECONDS):
                # Oldest first: none is idle for longer than the others.
                while idle and not idle[0].is_open():
                    idle.popleft().close()
                connection = idle.popleft() if idle else _Connection(*await asyncio.open_connection(host, port))
                acknowledged = await connection.post(path, body)
            idle.append(connection)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            acknowledged = False
        if acknowledged:
            latencies.append((time.perf_counter() - due_at) * 1000)
        else:
            failed += 1

    began, began_at = time.perf_counter(), time.time()
    async with asyncio.TaskGroup() as tasks:
        for number, (path, body) in enumerate(itertools.islice(itertools.cycle(requests), count)):
            due_at = began + number / per_second
            if (early := due_at - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            tasks.create_task(send_one(path, body, due_at))
    for connection in idle:
        connection.close()
    return json.dumps(
        {
            "began_at": began_at,
            "acknowledged": len(latencies),
            "failed": failed,
            "seconds": time.perf_counter() - began,
            "p50_ms": percentile(latencies, 50) if latencies else 0,
            "p99_ms": percentile(latencies, 99) if latencies else 0,
            "longest_ms": max(latencies, default=0),
        }
    )


def main() -> None:
    url, file, per_second, count, connections = sys.argv[1:]
    lines = (line.split("\t") for line in Path(file).read_text().splitlines())
    requests = [(path, body.encode()) for path, body in lines]
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    sending = send(
        address.hostname,
        address.port,
        requests,
        per_second=float(per_second),
        count=int(count),
        connections=int(connections),
    )
    print(asyncio.run(sending))


if __name__ == "__main__":
    main()
