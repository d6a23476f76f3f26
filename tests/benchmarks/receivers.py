"""Receivers side by side: ours, what others would write, and Flask doing nothing."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from rich.console import Console

from tests.benchmarks import queues
from tests.benchmarks.callbacks import (
    CONNECTIONS,
    CallbackFile,
    Sent,
    check_queued,
    send_at_rate,
    send_with_wrk,
    write_callbacks,
)
from tests.benchmarks.installation import Installation, all_running
from tests.benchmarks.measuring import Figures, Findings, Ratio, cpu_seconds, ratios_of, take_turns
from tests.benchmarks.peer_processes import peer_command, peer_process
from tests.benchmarks.sizes import Sizes
from tests.support.collector import Collector
from tests.support.processes import Process, answers, find_free_port
from tests.support.rabbitmq import RabbitMQ

OURS = "payment-callbacks"
EMBEDDED = "payment-callbacks, embedded queue"
TRACED = "payment-callbacks, every callback traced"
FLASK = "Flask + pika"
FASTAPI = "FastAPI + aio-pika"
FASTIFY = "Fastify + amqplib"
NOTHING = "Flask doing nothing"

_WARM_UP_SECONDS = 1
_EQUAL_LOAD = 0.7
# A turn with more failures than these says nothing about speed.
_MAX_REFUSED = 0.01
# As many callbacks in a second as no receiver here answers on two cores; where one does, they are sent again.
_MAX_PER_SECOND = 8_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A receiver that runs."""

    process: Process
    url: str
    #: Takes everything out of its queue: the order numbers. None where nothing is queued.
    take_queued: Callable[[], Sequence[str]] | None

    def warm_up(self, send: Callable[[str], Sent]) -> None:
        """Send callbacks of which nothing is expected: some refuse their first ones, until they are connected."""
        send(self.url)
        if self.take_queued is not None:
            self.take_queued()

    def measure(self, send: Callable[[str], Sent], callbacks: CallbackFile) -> Figures:
        """Send callbacks, and check that what was acknowledged is in the queue once."""
        cpu_before = cpu_seconds(self.process.pid)
        sent = send(self.url)
        cpu = cpu_seconds(self.process.pid) - cpu_before
        max_refused = _MAX_REFUSED * sent.acknowledged
        assert sent.refused <= max_refused, f"{self.process.name}: {sent.refused} refused, {sent.acknowledged} not"
        if self.take_queued is not None:
            check_queued(self.take_queued(), sent, callbacks, name=self.process.name)
        return {
            "requests/s": sent.acknowledged / sent.seconds,
            "CPU each, ms": cpu * 1000 / sent.acknowledged,
            "p50, ms": sent.p50_ms,
            "p99, ms": sent.p99_ms,
            "refused": sent.refused,
        }


def measure(sizes: Sizes, console: Console) -> list[Findings]:
    """As fast as they are answered; then ours and FastAPI at the same rate."""
    with tempfile.TemporaryDirectory() as name, RabbitMQ() as broker, ExitStack() as running:
        folder = Path(name)
        callbacks = write_callbacks(
            folder / "callbacks.txt", round(max(sizes.seconds, _WARM_UP_SECONDS) * _MAX_PER_SECOND), prefix="order"
        )
        contestants = _enter(broker, folder, running)
        wrk = partial(send_with_wrk, callbacks=callbacks, seconds=sizes.seconds)
        for each in contestants.values():
            each.warm_up(partial(send_with_wrk, callbacks=callbacks, seconds=_WARM_UP_SECONDS))
        figures = take_turns(
            {name: partial(each.measure, wrk, callbacks) for name, each in contestants.items()},
            rounds=sizes.rounds,
            console=console,
        )
        slower = min(median(turn["requests/s"] for turn in figures[name]) for name in (OURS, FASTAPI))
        per_second = _EQUAL_LOAD * slower
        steady = partial(
            send_at_rate, callbacks=callbacks, per_second=per_second, count=round(per_second * sizes.seconds)
        )
        equal = take_turns(
            {name: partial(contestants[name].measure, steady, callbacks) for name in (OURS, FASTAPI)},
            rounds=sizes.rounds,
            console=console,
        )
    by = partial(ratios_of, figures, "requests/s")
    return [
        Findings(
            title="Receivers",
            method=f"Signed callbacks on minted addresses from wrk over {CONNECTIONS} connections for "
            f"{sizes.seconds:g} s a turn; two workers each; a quorum queue, persistent, confirmed.",
            figures=figures,
            ratios=[
                Ratio(name=f"requests/s: ours / {FLASK}", per_round=by(ours=OURS, theirs=FLASK), at_least=2.0, aim=3.0),
                Ratio(
                    name=f"requests/s: ours / {FASTAPI}", per_round=by(ours=OURS, theirs=FASTAPI), at_least=1.0, aim=1.3
                ),
                Ratio(name=f"requests/s: ours / {FASTIFY}", per_round=by(ours=OURS, theirs=FASTIFY)),
                Ratio(
                    name=f"requests/s: ours / {NOTHING}", per_round=by(ours=OURS, theirs=NOTHING), at_least=0.6, aim=0.9
                ),
                Ratio(
                    name=f"requests/s: ours, embedded queue / {FLASK}",
                    per_round=by(ours=EMBEDDED, theirs=FLASK),
                    at_least=1.5,
                ),
            ],
        ),
        Findings(
            title="Receivers at equal load",
            method=f"{per_second:.0f} callbacks a second for both, {_EQUAL_LOAD:.0%} of what the slower one "
            "took, sent whether or not earlier ones are answered; a latency counts from when the callback was due.",
            figures=equal,
            ratios=[
                Ratio(
                    name=f"p99 at equal load: ours / {FASTAPI}",
                    per_round=ratios_of(equal, "p99, ms", ours=OURS, theirs=FASTAPI),
                    at_most=1.0,
                )
            ],
        ),
    ]


def measure_traced(sizes: Sizes, console: Console) -> list[Findings]:
    """Ours without traces, and with a span for everything, sent to a collector on this machine."""
    with tempfile.TemporaryDirectory() as name, RabbitMQ() as broker, Collector() as collector, ExitStack() as running:
        folder = Path(name)
        callbacks = write_callbacks(
            folder / "callbacks.txt", round(max(sizes.seconds, _WARM_UP_SECONDS) * _MAX_PER_SECOND), prefix="order"
        )
        variables = {OURS: {}, TRACED: {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.origin}}
        contestants = {
            name: running.enter_context(
                our_own(folder / name, amqp_url=broker.create_virtual_host(), environment=environment)
            )
            for name, environment in variables.items()
        }
        for each in contestants.values():
            each.warm_up(partial(send_with_wrk, callbacks=callbacks, seconds=_WARM_UP_SECONDS))
        wrk = partial(send_with_wrk, callbacks=callbacks, seconds=sizes.seconds)
        figures = take_turns(
            {name: partial(each.measure, wrk, callbacks) for name, each in contestants.items()},
            rounds=sizes.rounds,
            console=console,
        )
        assert collector.spans, "no span was sent"
    return [
        Findings(
            title="Receivers with traces",
            method=f"As above, {sizes.seconds:g} s a turn. The collector takes its share of the two processors.",
            figures=figures,
            ratios=[
                Ratio(name=f"{column}: traced / not", per_round=ratios_of(figures, column, ours=TRACED, theirs=OURS))
                for column in ("requests/s", "CPU each, ms")
            ],
        )
    ]


def _enter(broker: RabbitMQ, folder: Path, running: ExitStack) -> dict[str, Contestant]:
    """Start all of them."""
    enter = running.enter_context
    gunicorn = ("gunicorn", "--workers=2", "--threads=8", "--bind=127.0.0.1:PORT")
    uvicorn = ("uvicorn", "--workers=2", "--log-level=warning", "--no-access-log", "--port=PORT")

    def peer(name: str, *command: str, queued: bool = True) -> Contestant:
        return enter(_a_peer(name, command, folder=folder, amqp_url=broker.create_virtual_host(), queued=queued))

    return {
        OURS: enter(our_own(folder / "ours", amqp_url=broker.create_virtual_host())),
        EMBEDDED: enter(our_own(folder / "embedded")),
        FLASK: peer(FLASK, *gunicorn, "flask_pika:app"),
        FASTAPI: peer(FASTAPI, *uvicorn, "fastapi_aio_pika:app"),
        FASTIFY: peer(FASTIFY, "node", "fastify_amqplib.js", "PORT"),
        NOTHING: peer(NOTHING, *gunicorn, "flask_alone:app", queued=False),
    }


@contextmanager
def our_own(folder: Path, *, amqp_url: str = "", environment: Mapping[str, str] | None = None) -> Iterator[Contestant]:
    """Our receiver; without a broker's URL, with the embedded queue. `environment`: further variables."""
    installation = Installation(folder, amqp_url=amqp_url)
    installation.environment |= environment or {}
    with installation.running("receiver") as (process,):
        yield Contestant(
            process=process,
            url=installation.url,
            take_queued=partial(queues.empty, amqp_url, queues.OURS)
            if amqp_url
            else partial(queues.empty_file, installation.queue_file),
        )


@contextmanager
def _a_peer(name: str, command: Sequence[str], *, folder: Path, amqp_url: str, queued: bool) -> Iterator[Contestant]:
    """Where `command` says PORT, it is given one."""
    port = find_free_port()
    program, *arguments = (part.replace("PORT", str(port)) for part in command)
    process = peer_process(name, peer_command(program, *arguments), folder=folder, environment={"AMQP_URL": amqp_url})
    url = f"http://127.0.0.1:{port}"
    with all_running(process):
        process.wait_until(lambda: answers(url, status=404))
        yield Contestant(
            process=process, url=url, take_queued=partial(queues.empty, amqp_url, queues.THEIRS) if queued else None
        )
