"""A downstream system that answers webhooks at once or after a pause: `python -m tests.benchmarks.webhook PORT SECONDS`.

`GET /` says how many events came, and how many different ones. With `hang` in place of the seconds it never answers.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field

_NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


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
