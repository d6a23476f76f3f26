"""spin searches every interleaving of `leases.pml`: two dispatchers, crashes, early ends of leases, a replay."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

MODEL = Path(__file__).with_name("leases.pml")
SAFETY = ("-DSAFETY", "-DNOCLAIM")


def search(folder: Path, *defined: str, compiled: Sequence[str], options: Sequence[str] = ()) -> int:
    """Search all states; how many errors were found. `defined` are names that the model reads."""

    def run(*command: str) -> str:
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout

    run("spin", "-a", *(f"-D{name}" for name in defined), str(MODEL))
    run("cc", "-O1", "-w", *compiled, "-o", "pan", "pan.c")
    report = run("./pan", "-m1000000", *options)
    print(report)
    assert "max search depth too small" not in report
    found = re.search(r"errors: (\d+)", report)
    assert found is not None
    return int(found[1])


def test_events_arrive_in_sequence_and_only_the_holder_of_the_last_lease_settles(tmp_path: Path) -> None:
    assert search(tmp_path, compiled=SAFETY) == 0


def test_in_the_end_each_event_is_delivered_or_given_up(tmp_path: Path) -> None:
    # A process that can go on does so at some time (-f). One fault of each kind: such a search costs ten times as much.
    assert search(tmp_path, "MAX_FAULTS=1", compiled=(), options=("-a", "-f")) == 0


@pytest.mark.parametrize("guard", ["NO_FENCE", "NO_ORDER"])
def test_without_a_guard_spin_finds_the_fault(guard: str, tmp_path: Path) -> None:
    assert search(tmp_path, guard, compiled=SAFETY) > 0
