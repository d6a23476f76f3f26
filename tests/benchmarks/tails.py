"""Our receiver's latencies beside slow clients and beside a disk that others keep busy, with each kind of queue."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from threading import Event, Thread
from urllib.parse import urlsplit

from rich.console import Console

from tests.benchmarks.callbacks import CallbackFile, send_at_rate, write_callbacks
from tests.benchmarks.measuring import Figures, Findings, take_turns
from tests.benchmarks.receivers import EMBEDDED, OURS, our_own
from tests.benchmarks.sizes import Sizes
from tests.integration.receiver.test_slow_clients import (
    SlowClients,
    dripping_body,
    dripping_chunks,
    dripping_head,
    silent,
)
from tests.support.rabbitmq import RabbitMQ

_PER_SECOND = 200
_SLOW_CLIENTS = 200
_BLOCK_BYTES = 4 << 20
_FILE_BYTES = 64 * _BLOCK_BYTES


def measure(sizes: Sizes, console: Console) -> list[Findings]:
    """At a rate that leaves the receiver idle most of the time: what disturbs it shows in the longest latencies."""
    with tempfile.TemporaryDirectory() as name, RabbitMQ() as broker, ExitStack() as running:
        folder = Path(name)
        count = round(_PER_SECOND * sizes.seconds)
        callbacks = write_callbacks(folder / "callbacks.txt", count, prefix="order")
        urls = {
            OURS: running.enter_context(our_own(folder / "ours", amqp_url=broker.create_virtual_host())).url,
            EMBEDDED: running.enter_context(our_own(folder / "embedded")).url,
        }
        for url in urls.values():
            send_at_rate(url, callbacks, per_second=_PER_SECOND, count=_PER_SECOND)
        beside: Mapping[str, Callable[[str], AbstractContextManager[None]]] = {
            "alone": lambda _: nullcontext(),
            f"{_SLOW_CLIENTS} slow clients": _slow_clients,
            "a busy disk": lambda _: _busy_disk(folder / "filler"),
        }
        figures = take_turns(
            {
                f"{ours}; {disturbance}": partial(_one_turn, url, callbacks, start)
                for ours, url in urls.items()
                for disturbance, start in beside.items()
            },
            rounds=sizes.rounds,
            console=console,
        )
    return [
        Findings(
            title="The receiver beside slow clients and a busy disk",
            method=f"{_PER_SECOND} callbacks a second for {sizes.seconds:g} s a turn, sent whether or not earlier ones "
            f"are answered. {_SLOW_CLIENTS} clients send nothing, or a head, body or chunks byte by byte; when all are "
            "cut, as many come again. A busy disk is written in blocks of 4 MiB, each with an fsync.",
            figures=figures,
        )
    ]


def _one_turn(url: str, callbacks: CallbackFile, beside: Callable[[str], AbstractContextManager[None]]) -> Figures:
    with beside(url):
        sent = send_at_rate(url, callbacks, per_second=_PER_SECOND, count=len(callbacks.order_numbers))
    return {"p50, ms": sent.p50_ms, "p99, ms": sent.p99_ms, "longest, ms": sent.longest_ms, "refused": sent.refused}


@contextmanager
def _repeated(work: Callable[[], None]) -> Iterator[None]:
    """Repeats it on a thread of its own."""
    ended = Event()

    def repeat() -> None:
        while not ended.is_set():
            work()

    thread = Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _slow_clients(url: str) -> Iterator[None]:
    port = urlsplit(url).port
    assert port is not None
    kinds = [silent, dripping_head, dripping_body, dripping_chunks] * (_SLOW_CLIENTS // 4)
    with ExitStack() as clients:
        slow = clients.enter_context(SlowClients(port=port, kinds=kinds))

        def drip() -> None:
            nonlocal slow
            slow.drip()
            if not slow.left:
                slow = clients.enter_context(SlowClients(port=port, kinds=kinds))

        with _repeated(drip):
            yield


@contextmanager
def _busy_disk(file: Path) -> Iterator[None]:
    block = os.urandom(_BLOCK_BYTES)
    with file.open("wb", buffering=0) as filler:

        def write() -> None:
            if filler.tell() >= _FILE_BYTES:
                filler.seek(0)
            filler.write(block)
            os.fsync(filler.fileno())

        with _repeated(write):
            yield
