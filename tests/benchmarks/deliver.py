"""The dispatcher beside the loop that a team would write first: `python -m tests.benchmarks.deliver [EVENTS [ROUNDS]]`.

Both in turns, on one durable PostgreSQL, to a webhook in a process of its own that answers at once or after 20 ms. The
dispatcher is `payment-callbacks run dispatcher` with default settings and its log in a file. The loop is one thread
that selects one event `for update skip locked`, posts it with urllib3, updates it and commits. Then the dispatcher once
more, with a second endpoint that refuses every connection and is owed the same events. A rate is that of the last nine
tenths of the events; CPU is that of the sending process alone.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.claims import Trust
from service.clock import now
from service.events import DEFAULT_EVENT_TYPES
from service.ledger.engine import make_engine
from service.ledger.rules import EndpointRules, MerchantRules
from service.ledger.schema import migrate
from service.ledger.store import LedgerStore
from tests.support.claims import a_claim
from tests.support.ports import find_free_port
from tests.support.postgresql import PostgreSQL
from tests.support.waiting import eventually

_SECRET = "whsec_" + base64.b64encode(b"benchmark-benchmark-1234").decode()
_WARM_SHARE = 0.1
_RECORDED_AT_ONCE = 500
_MOST_SECONDS = 300
_spawning = multiprocessing.get_context("spawn")

_SETTINGS = """\
data_directory = "{folder}"

[merchants.acme]
pay_types = ["bank"]
amount_unit = "yuan"
required_trust = "capability"
"""
_ENDPOINT = """
[[endpoints]]
name = "{name}"
kind = "webhook"
url = "{url}"
secrets = ["{secret}"]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What one run showed."""

    events_per_second: float
    cpu_ms_per_event: float


class _Webhook(asyncio.Protocol):
    def __init__(self, taken: Any, pause_seconds: float) -> None:
        self._taken = taken
        self._pause_seconds = pause_seconds
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, rest = self._received.split(b"\r\n\r\n", 1)
            size = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            if len(rest) < size:
                return
            self._received = rest[size:]
            if self._pause_seconds:
                asyncio.get_running_loop().call_later(self._pause_seconds, self._answer)
            else:
                self._answer()

    def _answer(self) -> None:
        self._taken.value += 1
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def _serve(port: int, pause_seconds: float, taken: Any) -> None:
    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Webhook(taken, pause_seconds), "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(serve())


@contextmanager
def a_webhook(pause_seconds: float) -> Iterator[tuple[str, Any]]:
    """Its URL, and how many requests it has answered."""
    port, taken = find_free_port(), _spawning.Value("l", 0, lock=False)
    process = _spawning.Process(target=_serve, args=(port, pause_seconds, taken))
    process.start()
    try:
        eventually(lambda: _listens(port))
        yield f"http://127.0.0.1:{port}/events", taken
    finally:
        process.kill()
        process.join()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def run_loop(database_url: str, url: str, events: int) -> None:
    """What a team would write first: a thread that sends one event per transaction."""
    import urllib3
    from sqlalchemy import create_engine, text

    engine, http, key = create_engine(database_url), urllib3.PoolManager(), base64.b64decode(_SECRET[6:])
    for _ in range(events):
        with engine.begin() as connection:
            query = (
                "SELECT id, body FROM loop_outbox WHERE delivered_at IS NULL ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"
            )
            number, body = connection.execute(text(query)).one()
            content = json.dumps(body)
            signed = hmac.new(key, f"{number}.{int(time.time())}.{content}".encode(), hashlib.sha256).digest()
            headers = {"webhook-signature": base64.b64encode(signed).decode()}
            http.request("POST", url, body=content, headers=headers)
            connection.execute(text("UPDATE loop_outbox SET delivered_at = now() WHERE id = :id"), {"id": number})


def fill_loop(database_url: str, events: int) -> None:
    """So many events for the loop."""
    engine = make_engine(database_url)
    body = json.dumps({"biz_order_no": "o1", "pay_status": "success", "channel_response": "交易成功", "pad": "x" * 500})
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS loop_outbox")
        connection.exec_driver_sql(
            "CREATE TABLE loop_outbox (id bigserial PRIMARY KEY, body jsonb, delivered_at timestamptz)"
        )
        connection.exec_driver_sql(
            "INSERT INTO loop_outbox (body) SELECT %s::jsonb FROM generate_series(1, %s)", (body, events)
        )
    engine.dispose()


def fill_ours(database_url: str, events: int, *endpoints: str) -> None:
    """So many events in the outbox, each for every endpoint."""
    engine = make_engine(database_url)
    migrate(engine)
    rules = MerchantRules(
        required_trust=Trust.CAPABILITY, can_ask=False, answer_due_seconds=600, inquiry_horizon_seconds=86_400
    )
    store = LedgerStore(
        engine=engine,
        rules={"acme": rules},
        endpoints=[EndpointRules(name=name, types=DEFAULT_EVENT_TYPES) for name in endpoints],
        clock=now,
    )
    prefix = time.monotonic_ns()
    claims = [
        a_claim(order=f"{prefix}-{number}", traceparent=_TRACEPARENT, stated_at=now()) for number in range(events)
    ]
    for first in range(0, events, _RECORDED_AT_ONCE):
        store.record(claims[first : first + _RECORDED_AT_ONCE])
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("ANALYZE")
    engine.dispose()


_TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


def measure(command: list[str], taken: Any, events: int, environment: Mapping[str, str] = {}) -> Speed:
    """Run `command` until the webhook has taken so many events."""
    before = taken.value
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
        try:
            warm = before + int(events * _WARM_SHARE)
            _await(lambda: taken.value >= warm, process)
            first, began, cpu = taken.value, time.monotonic(), _cpu_seconds(process.pid)
            _await(lambda: taken.value >= before + events, process)
            seconds, cpu = time.monotonic() - began, _cpu_seconds(process.pid) - cpu
        finally:
            process.terminate()
            process.wait()
    measured = before + events - first
    return Speed(events_per_second=measured / seconds, cpu_ms_per_event=cpu * 1000 / measured)


def _await(done: Any, process: "subprocess.Popen[bytes]") -> None:
    ends_at = time.monotonic() + _MOST_SECONDS
    while not done():
        if time.monotonic() > ends_at or process.poll() not in (None, 0):
            raise SystemExit("the sender has stopped, or takes too long")
        time.sleep(0.01)


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except FileNotFoundError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Bench:
    """Runs either sender on events of its own."""

    def __init__(self, folder: Path, database_url: str, events: int) -> None:
        self._folder, self._database_url, self._events = folder, database_url, events

    def measure_loop(self, url: str, taken: Any) -> Speed:
        fill_loop(self._database_url, self._events)
        database_url = make_engine(self._database_url).url.render_as_string(hide_password=False)
        command = [sys.executable, "-m", "tests.benchmarks.deliver", "--loop", database_url, url, str(self._events)]
        return measure(command, taken, self._events)

    def measure_ours(self, url: str, taken: Any, *, dead: str = "") -> Speed:
        endpoints = {"shop": url} | ({"dead": dead} if dead else {})
        fill_ours(self._database_url, self._events, *endpoints)
        settings = self._folder / "settings.toml"
        text = _SETTINGS.format(folder=self._folder)
        text += "".join(_ENDPOINT.format(name=name, url=to, secret=_SECRET) for name, to in endpoints.items())
        settings.write_text(text)
        command = [str(Path(sys.executable).with_name("payment-callbacks")), "--config", str(settings)]
        environment = {"DATABASE_URL": self._database_url, "AMQP_URL": ""}
        return measure([*command, "run", "dispatcher"], taken, self._events, environment)


def main() -> None:
    """Print one line per round and kind, then the medians of the ratios."""
    if sys.argv[1:2] == ["--loop"]:
        run_loop(sys.argv[2], sys.argv[3], int(sys.argv[4]))
        return
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory() as folder, PostgreSQL(durable=True) as cluster:
        bench = Bench(Path(folder), cluster.create_database(), events)
        for pause_seconds in (0.0, 0.02):
            ratios, costs = [], []
            for _ in range(rounds):
                with a_webhook(pause_seconds) as (url, taken):
                    loop, ours = bench.measure_loop(url, taken), bench.measure_ours(url, taken)
                    beside_dead = bench.measure_ours(url, taken, dead=f"http://127.0.0.1:{find_free_port()}/")
                _tell(pause_seconds, loop=loop, ours=ours, beside_dead=beside_dead)
                ratios.append(ours.events_per_second / loop.events_per_second)
                costs.append(1 - beside_dead.events_per_second / ours.events_per_second)
            print(
                f"answered after {pause_seconds * 1000:.0f} ms, medians: {statistics.median(ratios):.2f} x the loop;"
                f" a dead endpoint costs {statistics.median(costs):.1%}"
            )


def _tell(pause_seconds: float, **speeds: Speed) -> None:
    said = ", ".join(
        f"{name} {speed.events_per_second:.0f}/s at {speed.cpu_ms_per_event:.2f} ms CPU"
        for name, speed in speeds.items()
    )
    print(f"answered after {pause_seconds * 1000:.0f} ms: {said} (load {os.getloadavg()[0]:.1f})", flush=True)


if __name__ == "__main__":
    main()
