"""Kill and freeze everything at random under load, and count what was lost: `python -m tests.chaos [chaos|soak]`.

`chaos` is three runs of some minutes. `soak` is many rounds, and goes on where it was interrupted. Both write what they
have found to docs/reliability.md, unless a fault was found: then they say where its journals are.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.benchmarks.measuring import a_progress
from tests.chaos.page import describe_run, write_section
from tests.chaos.report import add_up, write_table
from tests.chaos.run import Foundation, Outcome, Size, run_chaos
from tests.support.disks import Disk
from tests.support.postgresql import Database, PostgreSQL
from tests.support.rabbitmq import RabbitMQ

_CHAOS: Mapping[Foundation, Size] = {
    Foundation.SERVERS: Size(callbacks=4_000, kills=24, freezes=6, replays=1, power_cuts=2, per_second=100),
    Foundation.SPOOL: Size(callbacks=4_000, kills=24, freezes=6, replays=1, power_cuts=2, per_second=100),
    Foundation.EMBEDDED: Size(callbacks=2_000, kills=12, freezes=4, replays=1, power_cuts=4, per_second=100),
}
_CALLBACKS = sum(size.callbacks for size in _CHAOS.values())
_ROUNDS = 20
_ROUND = Size(callbacks=50_000, kills=20, freezes=5, replays=1, per_second=1000)
# Of the disks of RabbitMQ and PostgreSQL, for 10,000 callbacks.
_SERVERS_MEBIBYTES = (256, 384)
_FOUNDATIONS = (Foundation.SERVERS, Foundation.SPOOL)
_STATE = Path(__file__).parents[2] / ".chaos"


def main() -> None:
    """Exit status 1 where anything was found."""
    options = _parse()
    for number in (signal.SIGTERM, signal.SIGINT):  # what is started in the background ignores the second
        signal.signal(number, signal.default_int_handler)
    console = Console(stderr=True)
    if options.what == "chaos":
        seed = random.randrange(100_000) if options.seed is None else options.seed
        _run_chaos(seed, options.callbacks or _CALLBACKS, console)
    else:
        _run_soak(options.seed or 1, options.rounds, options.callbacks or _ROUND.callbacks, console)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=["chaos", "soak"], default="chaos")
    parser.add_argument("--seed", type=int, help="of the plan; the same seed gives the same plan (chaos: any; soak: 1)")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help=f"of the soak (default: {_ROUNDS})")
    parser.add_argument(
        "--callbacks",
        type=int,
        help=f"of one round of the soak (default: {_ROUND.callbacks}), or of the whole chaos (default: {_CALLBACKS}); "
        "with fewer, there are fewer faults",
    )
    return parser.parse_args()


def _run_chaos(seed: int, callbacks: int, console: Console) -> None:
    share = callbacks / _CALLBACKS
    outcomes = [_run_one(part, seed, _scale(size, share), console) for part, size in _CHAOS.items()]
    command = f"make chaos SEED={seed}"
    if callbacks != _CALLBACKS:
        command += f' CHAOS_ARGS="--callbacks {callbacks}"'
    text = f"{describe_run(command)}\n\n{write_table(outcomes, names=list(_CHAOS))}"
    print(text)
    write_section("chaos", text)


def _scale(size: Size, share: float) -> Size:
    return replace(
        size,
        callbacks=round(size.callbacks * share),
        kills=max(1, round(size.kills * share)),
        freezes=max(1, round(size.freezes * share)),
    )


def _run_soak(seed: int, rounds: int, callbacks: int, console: Console) -> None:
    """Every round is a run of its own. The state has those that are done."""
    size = _scale(_ROUND, callbacks / _ROUND.callbacks)
    _STATE.mkdir(exist_ok=True)
    state = _STATE / f"soak-{seed}-{rounds}-{callbacks}.json"
    done = [_read_outcome(one) for one in json.loads(state.read_text())] if state.exists() else []
    for number in range(len(done), rounds):
        console.print(f"round {number + 1} of {rounds}", highlight=False)
        foundation = _FOUNDATIONS[number % len(_FOUNDATIONS)]
        done.append(_run_one(foundation, seed * 1000 + number, size, console))
        written = state.with_suffix(".new")
        written.write_text(json.dumps([asdict(one) for one in done], ensure_ascii=False), encoding="utf-8")
        written.replace(state)  # whoever is killed meanwhile leaves the state of the round before
    command = f"make soak SEED={seed}"
    if (rounds, callbacks) != (_ROUNDS, _ROUND.callbacks):
        command += f' SOAK_ARGS="--rounds {rounds} --callbacks {callbacks}"'
    text = f"{describe_run(command)}\n\n{add_up(done)}"
    print(text)
    write_section("soak", text)


def _read_outcome(stored: Mapping[str, Any]) -> Outcome:
    return Outcome(**{**stored, "foundation": Foundation(stored["foundation"]), "size": Size(**stored["size"])})


def _run_one(foundation: Foundation, seed: int, size: Size, console: Console) -> Outcome:
    """Ends the command where a fault was found; the journals stay. Only root can cut the power of a disk."""
    size = replace(size, power_cuts=size.power_cuts if os.geteuid() == 0 else 0)
    folder = Path(tempfile.mkdtemp(prefix="payment-callbacks-chaos-"))
    with ExitStack() as held:
        servers: dict[str, Any] = {}
        if foundation is not Foundation.EMBEDDED:
            disks: list[Disk | None] = [None, None]
            if foundation is Foundation.SERVERS and size.power_cuts:
                disks = [held.enter_context(Disk(mebibytes=mebibytes)) for mebibytes in _SERVERS_MEBIBYTES]
            servers["rabbitmq"] = held.enter_context(RabbitMQ(disk=disks[0]))
            cluster = held.enter_context(PostgreSQL(durable=True, disk=disks[1]))
            servers["postgresql"] = Database(url=cluster.create_database(), cluster=cluster)
        progress = held.enter_context(a_progress(console))
        bar = progress.add_task(f"{foundation}, seed {seed}")
        try:
            outcome = run_chaos(
                folder=folder,
                foundation=foundation,
                seed=seed,
                size=size,
                on_progress=lambda done, total: progress.update(bar, completed=done, total=total),
                **servers,
            )
        except BaseException:
            console.print(f"seed {seed}: the journals and logs are in {folder}", highlight=False)
            raise
    if any(outcome.faults.values()):
        print(f"seed {seed}: {outcome.faults}; the journals and logs are in {folder}\n{outcome.report['examples']}")
        sys.exit(1)
    shutil.rmtree(folder)
    return outcome


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Interrupted. A soak goes on where it was; chaos begins again with the seed that is named above.")
