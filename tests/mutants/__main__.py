"""Takes one guard away after the other, in a copy of the repository, and shows that a test fails each time.

`python -m tests.mutants [WORD...]` tries the mutants whose names have one of the words, or all. Prints a line for each;
all of them are also listed in docs/reliability.md. With `--chaos SEED`, a small chaos run has to find them instead of a
test.
Exits with 1 where one survives, which means that a test is missing, and with 2 where the named tests cannot show it.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.page import describe_run, write_section
from tests.mutants.mutants import MUTANTS, Mutant

_REPOSITORY = Path(__file__).parents[2]
#: Without a guard, a test may wait for what never comes.
_HANGS_AFTER_SECONDS = 120


class Unusable(Exception):
    """The named tests say nothing about a mutant."""


def main(words: Sequence[str], *, chaos_seed: int | None) -> int:
    """Try the mutants; the exit status."""
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder)
        _copy_repository(copy)
        try:
            if chaos_seed is None:
                tests = list(dict.fromkeys(test for mutant in chosen for test in mutant.tests))
                if (failed := find_failure(copy, tests)) is not None:
                    raise Unusable(f"{failed} fails although no guard is missing")  # noqa: TRY301
            killers = {mutant.name: _find_killer(copy, mutant, chaos_seed) for mutant in chosen}
        except Unusable as error:
            print(error, file=sys.stderr)
            return 2
    survivors = [name for name, killer in killers.items() if killer is None]
    result = f"{len(killers)} mutants, {len(survivors)} survived"
    print(result)
    if not words and chaos_seed is None:
        rows = [f"| {name} | {f'`{killer}`' if killer else '**survived**'} |" for name, killer in killers.items()]
        lines = [
            describe_run("make mutants"),
            "",
            f"{result}.",
            "",
            "| without the guard | test that fails |",
            "|---|---|",
            *rows,
        ]
        write_section("mutants", "\n".join(lines))
    return 1 if survivors else 0


def _find_killer(copy: Path, mutant: Mutant, chaos_seed: int | None) -> str | None:
    """The first named test that fails without the guard, or what chaos finds; None where the mutant survives."""
    mutant.apply(copy)
    try:
        killer = find_failure(copy, mutant.tests) if chaos_seed is None else _find_by_chaos(copy, chaos_seed)
    finally:
        for edit in mutant.edits:
            shutil.copy2(_REPOSITORY / edit.file, copy / edit.file)
    files = ", ".join(dict.fromkeys(edit.file for edit in mutant.edits))
    print(f"{mutant.name}: {files}: {'SURVIVED' if killer is None else f'killed by {killer}'}", flush=True)
    return killer


def find_failure(folder: Path, tests: Sequence[str]) -> str | None:
    """Run tests of the repository in `folder`; the first that fails. Raises Unusable where they cannot run."""
    options = ["-x", "-q", "-p", "no:cacheprovider", "--timeout", str(_HANGS_AFTER_SECONDS)]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    ran = _run(command, folder)
    if ran.returncode == 0:
        return None
    failed = re.search(r"^FAILED (\S+)", ran.stdout, re.MULTILINE)
    if ran.returncode != 1 or failed is None:
        raise Unusable(f"pytest ended with {ran.returncode}:\n{ran.stdout}{ran.stderr}")
    return failed[1]


def _find_by_chaos(folder: Path, seed: int) -> str | None:
    """The last line of what a small chaos run says of its faults; None where it finds none."""
    ran = _run([sys.executable, "-m", "tests.chaos", "chaos", "--seed", str(seed), "--callbacks", "3000"], folder)
    if ran.returncode == 0:
        return None
    return next((line for line in ran.stdout.splitlines() if line.startswith("seed")), ran.stderr.strip()[-500:])


def _run(command: Sequence[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    # Programs that tests start find the copy before what is installed, and no compiled file outlives its source.
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)


def _copy_repository(folder: Path) -> None:
    """Copy what git knows or would add, as it is on the disk."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=_REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (source := _REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--chaos", type=int, metavar="SEED")
    options = parser.parse_args()
    sys.exit(main(options.words, chaos_seed=options.chaos))
