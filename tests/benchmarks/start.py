"""What it takes to start: commands, the receiver until it is ready, and what each role holds while it is idle."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console

from tests.benchmarks.installation import COMMAND, Installation, all_running
from tests.benchmarks.measuring import (
    Figures,
    Findings,
    Ratio,
    cpu_of_command,
    cpu_seconds,
    ratios_of,
    resident_mebibytes,
    take_turns,
)
from tests.benchmarks.sizes import Sizes
from tests.support.postgresql import PostgreSQL
from tests.support.processes import Process
from tests.support.rabbitmq import RabbitMQ

ROLES = ("receiver", "ledger", "inquirer", "dispatcher", "api")
IMPORT = "python -c 'import click'"
HELP = "payment-callbacks --help"
CHECK = "payment-callbacks config check"
RUN = "payment-callbacks run receiver"

# Before commands imported only what they run.
_BEFORE = "a876caf"
_RUN_BEFORE = f"{RUN}, {_BEFORE}"
_REPOSITORY = Path(__file__).parents[2]
_PAUSE_SECONDS = 0.005


def measure(sizes: Sizes, console: Console) -> list[Findings]:
    """Commands in turns, then the receiver in turns with its older self, then all roles once."""
    with tempfile.TemporaryDirectory() as name, RabbitMQ() as broker, PostgreSQL() as cluster:
        folder = Path(name)
        installation = Installation(
            folder / "ours",
            amqp_url=broker.url,
            database_url=cluster.create_database(),
            endpoints={"shop": "http://127.0.0.1:9/"},
        )
        installation.run("migrate")
        return [
            _measure_commands(installation, sizes, console),
            _measure_receiver(installation, folder, sizes, console),
            _measure_idle(installation),
        ]


def _measure_commands(installation: Installation, sizes: Sizes, console: Console) -> Findings:
    def run(*command: str | Path) -> Figures:
        return {"CPU, s": cpu_of_command(*command, environment=installation.environment)}

    figures = take_turns(
        {
            IMPORT: partial(run, sys.executable, "-c", "import click"),
            HELP: partial(run, COMMAND, "--help"),
            CHECK: partial(run, COMMAND, "--config", installation.settings_file, "config", "check"),
        },
        rounds=sizes.rounds,
        console=console,
    )
    by = partial(ratios_of, figures, "CPU, s", theirs=IMPORT)
    return Findings(
        title="Commands",
        method="User and kernel time of a command from its start to its end.",
        figures=figures,
        ratios=[
            Ratio(name="CPU: --help / import click", per_round=by(ours=HELP), at_most=3),
            Ratio(name="CPU: config check / import click", per_round=by(ours=CHECK), at_most=6),
        ],
    )


def _measure_receiver(installation: Installation, folder: Path, sizes: Sizes, console: Console) -> Findings:
    """Beside its older self, where git knows that and the dependencies that are here suffice for it."""
    contestants: dict[str, Callable[[], Figures]] = {
        RUN: lambda: _start(installation, installation.process("receiver"))
    }
    _compile(_REPOSITORY)
    older = _unpack(_BEFORE, folder / _BEFORE)
    if older is not None and not _runs(older, console):
        older = None
    if older is not None:
        _compile(older)
        contestants[_RUN_BEFORE] = lambda: _start(installation, _process_of(older, installation, folder))
    figures = take_turns(contestants, rounds=sizes.rounds, console=console)
    ratios = []
    if older is not None:
        by = ratios_of(figures, "ready after, s", ours=RUN, theirs=_RUN_BEFORE)
        ratios = [Ratio(name=f"run receiver, ready after: now / {_BEFORE}", per_round=by, at_most=1 / 3)]
    return Findings(
        title="The receiver's start",
        method="From the start of the process until /readyz is answered with 200, on RabbitMQ.",
        figures=figures,
        ratios=ratios,
    )


def _start(installation: Installation, process: Process) -> Figures:
    began = time.monotonic()
    with all_running(process):
        # Looks more often than `wait_until`, whose pauses would be a tenth of what is measured.
        while not installation.ready("receiver"):
            assert process.running, f"ended before it was ready: {process.describe()}"
            time.sleep(_PAUSE_SECONDS)
        return {"ready after, s": time.monotonic() - began, "CPU, s": cpu_seconds(process.pid)}


def _process_of(source: Path, installation: Installation, folder: Path) -> Process:
    return Process(
        name="older-receiver",
        command=[sys.executable, "-m", "service.cli.main", "--config", installation.settings_file, "run", "receiver"],
        log_file=folder / "older-receiver.log",
        environment=installation.environment,
        directory=source,
    )


def _unpack(revision: str, folder: Path) -> Path | None:
    """The source of a revision; None where there is no git, or where it does not know that one."""
    folder.mkdir()
    archive = folder / "source.tar"
    command = ["git", "-C", str(_REPOSITORY), "archive", "--output", str(archive), revision, "service", "consumers"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    subprocess.run(["tar", "-xf", archive, "-C", folder], check=True)
    return folder


def _runs(source: Path, console: Console) -> bool:
    """Whether that release finds all that it imports; says what it lacks."""
    command = [sys.executable, "-c", "import service.cli.main, service.web.app"]
    imported = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    if imported.returncode:
        lacks = imported.stderr.strip().splitlines()[-1]
        console.print(f"{source.name} is left out: {lacks}; install that here to compare with it", markup=False)
    return not imported.returncode


def _compile(source: Path) -> None:
    """Both sides start from byte code, as installed programs do, whatever PYTHONDONTWRITEBYTECODE says."""
    subprocess.run([sys.executable, "-m", "compileall", "-q", source / "service", source / "consumers"], check=True)


def _measure_idle(installation: Installation) -> Findings:
    with installation.running(*ROLES) as processes:
        figures = {
            role: [{"resident, MiB": resident_mebibytes(process.pid)}]
            for role, process in zip(ROLES, processes, strict=True)
        }
    return Findings(
        title="Idle memory",
        method="The resident sets of a role's processes (the receiver and the API have a master and two workers), "
        "added up, as soon as all roles are ready: pages that processes share count once for each.",
        figures=figures,
    )
