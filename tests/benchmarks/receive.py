"""How many callbacks a second the receiver answers, with its own worker and with gunicorn's others, in turns.

Run `python -m tests.benchmarks.receive`; it needs wrk and RabbitMQ (started privately), and gevent for that worker.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from service.messaging import topology
from tests.support.callbacks import callback
from tests.support.ports import find_free_port
from tests.support.processes import Process
from tests.support.rabbitmq import RabbitMQ

_CALLBACKS = 2000
_OWN_WORKER = "receiver"
_SERVER = "tests.support.receiver"
_PATCHED_START = (
    "from gevent import monkey; monkey.patch_all(); import runpy; "
    f"runpy.run_module({_SERVER!r}, run_name='__main__', alter_sys=True)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    per_second: float
    #: Of the server's processes; unlike the others it says the same on a busy machine.
    cpu_ms_each: float
    median_ms: float
    p99_ms: float
    failed: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--workers", nargs="+", default=[_OWN_WORKER, "gthread", "gevent"])
    parser.add_argument("--queues", nargs="+", default=["rabbitmq", "embedded"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        script = _write_script(Path(folder))
        for queue in options.queues:
            results: dict[str, list[Result]] = {worker: [] for worker in options.workers}
            with _queue(queue, Path(folder)) as arguments:
                for round_number in range(options.rounds):
                    for worker in options.workers:
                        log = Path(folder) / f"{queue}-{worker}-{round_number}.log"
                        result = _measure(worker, arguments, log, script, options)
                        results[worker].append(result)
                        print(f"{queue:9} {worker:9} {result}", flush=True)
            for worker, measured in results.items():
                print(
                    f"median: {queue:9} {worker:9} {median(r.per_second for r in measured):7.0f}/s "
                    f"CPU {median(r.cpu_ms_each for r in measured):5.2f} ms  "
                    f"p50 {median(r.median_ms for r in measured):6.1f} ms  "
                    f"p99 {median(r.p99_ms for r in measured):6.1f} ms",
                    flush=True,
                )


@contextmanager
def _queue(kind: str, folder: Path) -> Iterator[list[str]]:
    if kind == "embedded":
        yield ["--queue-file", str(folder / "queue.sqlite3")]
        return
    with RabbitMQ() as broker:
        topology.declare([broker.url], timeout_seconds=10)
        yield ["--amqp-url", broker.url]


def _measure(worker: str, arguments: list[str], log: Path, script: Path, options: argparse.Namespace) -> Result:
    address = f"127.0.0.1:{find_free_port()}"
    # gevent has to replace the sockets and locks before anybody imports them.
    start = ["-c", _PATCHED_START] if worker == "gevent" else ["-m", _SERVER]
    command = [sys.executable, *start, "--bind", address, *arguments]
    if worker != _OWN_WORKER:
        command += ["--worker-class", worker]
    server = Process(name=worker, command=command, log_file=log)
    server.start()
    try:
        server.wait_until(lambda: _ready(address))
        _load(address, script, server, connections=options.connections, seconds=2)
        return _load(address, script, server, connections=options.connections, seconds=options.seconds)
    finally:
        server.terminate()
        server.kill()


def _load(address: str, script: Path, server: Process, *, connections: int, seconds: int) -> Result:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), f"http://{address}"]
    cpu_before = _cpu_seconds(server)
    report = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=True).stdout
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", report)
    return Result(
        cpu_ms_each=(_cpu_seconds(server) - cpu_before) * 1000 / int(re.search(r"(\d+) requests in", report)[1]),
        per_second=float(re.search(r"Requests/sec:\s+([\d.]+)", report)[1]),
        median_ms=_milliseconds(re.search(r"\n +50% +(\S+)", report)[1]),
        p99_ms=_milliseconds(re.search(r"\n +99% +(\S+)", report)[1]),
        failed=int(refused[1]) if refused else 0,
    )


def _cpu_seconds(server: Process) -> float:
    """What the server and its workers have used so far."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in (server.pid, *children)]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


def _milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def _ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/readyz", timeout=1) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _write_script(folder: Path) -> Path:
    """wrk's Lua: signed callbacks of many orders, each on its minted address, in turns."""
    sent = [callback(f"order-{number:06}") for number in range(_CALLBACKS)]
    lines = [f"  {{ {_lua(one.path)}, {_lua(one.body.decode())} }}," for one in sent]
    script = folder / "callbacks.lua"
    script.write_text(
        "local callbacks = {\n" + "\n".join(lines) + "\n}\nlocal at = 0\n"
        'local headers = { ["Content-Type"] = "application/json" }\n'
        "request = function()\n  at = at % #callbacks + 1\n"
        '  return wrk.format("POST", callbacks[at][1], headers, callbacks[at][2])\nend\n'
    )
    return script


def _lua(text: str) -> str:
    return f"[==[{text}]==]"


if __name__ == "__main__":
    main()
