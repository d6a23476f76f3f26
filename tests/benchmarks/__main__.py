"""Benchmarks of the service beside what else one would write: `python -m tests.benchmarks [NAME...]`.

Without a name all of them run, which takes hours; with --quick only the first four.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from tests.benchmarks import dispatcher, ledger, long_runs, pages, receivers, start, tails
from tests.benchmarks.measuring import Findings
from tests.benchmarks.report import describe_run, line, read_raw, write_page, write_raw
from tests.benchmarks.sizes import Sizes

QUICK: Mapping[str, Callable[[Sizes, Console], list[Findings]]] = {
    "receivers": receivers.measure,
    "ledger": ledger.measure,
    "dispatcher": dispatcher.measure,
    "start": start.measure,
}
ALL = {
    **QUICK,
    "traced-receivers": receivers.measure_traced,
    "tails": tails.measure,
    "latency": long_runs.measure_latency,
    "second-ledger": long_runs.measure_second_ledger,
    "orders": long_runs.measure_orders,
    "pages": pages.measure,
    "backlog": long_runs.measure_backlog,
    "memory": long_runs.measure_memory,
}


def main() -> None:
    """Run them one after the other; exit status 1 where anything was lost, repeated or not measured."""
    options = _parse()
    sizes = Sizes().quick() if options.quick else Sizes()
    sizes = replace(
        sizes.scaled(options.scale),
        rounds=options.rounds or sizes.rounds,
        seconds=options.seconds or sizes.seconds,
    )
    console = Console(stderr=True)
    findings: dict[str, Findings] = {each.title: each for each in read_raw(options.json)} if options.json else {}
    for name in options.names or (QUICK if options.quick else ALL):
        console.print(f"== {name}", highlight=False)
        load_before = os.getloadavg()
        for found in ALL[name](sizes, console):
            findings[found.title] = replace(found, measured=describe_run(load_before))
            for ratio in found.ratios:
                print(line(ratio), flush=True)
        # After each: the next may take hours.
        if options.json:
            write_raw(options.json, list(findings.values()))
        if options.page:
            write_page(options.page, list(findings.values()), command=_command())


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ALL))
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: minutes, and figures less sure")
    parser.add_argument("--rounds", type=int, help=f"turns of each contestant (default: {Sizes().rounds})")
    parser.add_argument("--seconds", type=float, help=f"of a receiver's turn (default: {Sizes().seconds:g})")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of all counts of orders and callbacks, for trying out"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write every figure of every round; what it has of others stays"
    )
    parser.add_argument("--page", type=Path, metavar="FILE", help="write a page; what was written in it by hand stays")
    options = parser.parse_args()
    if unknown := set(options.names) - ALL.keys():
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    return options


def _command() -> str:
    """As a person would type it."""
    return shlex.join(["python", "-m", "tests.benchmarks", *sys.argv[1:]])


if __name__ == "__main__":
    main()
