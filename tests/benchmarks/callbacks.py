"""Callbacks of a gateway, sent as fast as they are answered (wrk) or at a fixed rate, and what has come of them."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.callbacks import Callback, mint_token

MERCHANT = "acme"
TOKEN_KEY = "the token key of a merchant, for measuring"
#: Callbacks that are under way at once.
CONNECTIONS = 64

# Each line of the file is a path, a tab, and a body. `setup` and `done` run in another Lua state than `request`.
_WRK_SCRIPT = """\
local thread
function setup(made) thread = made end
function init(arguments) lines = io.open(arguments[1]); sent = 0 end
local headers = { ["Content-Type"] = "application/json" }
function request()
  local line = lines:read()
  if line == nil then lines:seek("set"); line = lines:read() end
  sent = sent + 1
  local tab = line:find("\\t", 1, true)
  return wrk.format("POST", line:sub(1, tab - 1), headers, line:sub(tab + 1))
end
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\\n{"requests": %d, "seconds": %f, "refused": %d, "broken": %d, "p50": %f, "p99": %f, "longest": %f}\\n',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackFile:
    """Callbacks of as many orders as it has lines."""

    path: Path
    order_numbers: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What the sender saw."""

    acknowledged: int
    #: Answered with a failure, which tells the gateway to repeat it.
    refused: int
    #: Sent, but without an answer when it ended: it may have been received.
    unanswered: int
    #: Of the system's clock.
    began_at: float
    seconds: float
    p50_ms: float
    p99_ms: float
    longest_ms: float


def write_callbacks(path: Path, count: int, *, prefix: str, first: int = 0) -> CallbackFile:
    """A success of each of `count` orders, numbered from `first`, on the address that was minted for it."""
    order_numbers = [f"{prefix}-{number:08}" for number in range(first, first + count)]
    with path.open("w") as file:
        for order in order_numbers:
            token = mint_token(kid="k1", key=TOKEN_KEY, merchant=MERCHANT, biz_order_no=order)
            callback = Callback(
                biz_order_no=order, merchant=MERCHANT, token=token, changes={"channel_response": "交易成功"}
            )
            file.write(f"{callback.path}\t{callback.body.decode()}\n")
    return CallbackFile(path=path, order_numbers=order_numbers)


def send_with_wrk(url: str, callbacks: CallbackFile, *, seconds: float) -> Sent:
    """Send the file's callbacks over `CONNECTIONS` connections, each the next one as soon as one is answered."""
    script = callbacks.path.with_suffix(".lua")
    script.write_text(_WRK_SCRIPT)
    whole_seconds = max(1, round(seconds))
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{whole_seconds}s", "--timeout", "10s", "-s", script, url]
    began_at = time.time()
    done = subprocess.run(
        [*map(str, command), "--", str(callbacks.path)],
        capture_output=True,
        text=True,
        timeout=whole_seconds + 60,
        check=False,
    )
    assert done.returncode == 0, f"wrk failed:\n{done.stdout}{done.stderr}"
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["broken"] == 0, f"{url}: {seen['broken']} connections or answers broke"
    return Sent(
        acknowledged=seen["requests"] - seen["refused"],
        refused=seen["refused"],
        unanswered=CONNECTIONS,
        seconds=seen["seconds"],
        began_at=began_at,
        p50_ms=seen["p50"],
        p99_ms=seen["p99"],
        longest_ms=seen["longest"],
    )


def send_at_rate(url: str, callbacks: CallbackFile, *, per_second: float, count: int, connections: int = 1000) -> Sent:
    """Send `count`, so many a second, answered or not, from a process of its own (`fixed_rate.py`).

    With an infinite rate each is sent as soon as one of the `connections` is free.
    """
    command = [sys.executable, "-m", "tests.benchmarks.fixed_rate", url, str(callbacks.path)]
    done = subprocess.run(
        [*command, str(per_second), str(count), str(connections)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"the sender failed:\n{done.stdout}{done.stderr}"
    seen = json.loads(done.stdout)
    return Sent(
        acknowledged=seen["acknowledged"],
        refused=seen["failed"],
        unanswered=0,
        seconds=seen["seconds"],
        began_at=seen["began_at"],
        p50_ms=seen["p50_ms"],
        p99_ms=seen["p99_ms"],
        longest_ms=seen["longest_ms"],
    )


def check_queued(order_numbers: Iterable[str], sent: Sent, callbacks: CallbackFile, *, name: str) -> None:
    """Fail unless what was acknowledged has been queued, and nothing more often than it was sent."""
    queued = Counter(order_numbers)
    # These may be in the queue or not: nobody has promised it.
    uncertain = sent.unanswered + sent.refused
    most = sent.acknowledged + uncertain
    assert sent.acknowledged <= queued.total() <= most, (
        f"{name}: {sent.acknowledged} acknowledged, {uncertain} uncertain, but {queued.total()} queued"
    )
    # The file is read in order, and again when it ends.
    times = -(-most // len(callbacks.order_numbers))
    twice = {order: count for order, count in queued.items() if count > times}
    assert not twice, f"{name}: {len(twice)} orders were queued more than {times} times, like {min(twice)}"
    if times == 1:
        # One more may be missing: the first, by which wrk tries its script.
        missing = set(callbacks.order_numbers[:most]) - queued.keys()
        assert len(missing) <= uncertain + 1, f"{name}: {len(missing)} orders are missing, like {min(missing)}"


def without_proxies() -> dict[str, str]:
    """The environment of servers on this machine."""
    return {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
