"""Turns, ratios of one round, and what processes use."""

import contextlib
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

#: What one turn has measured: a figure by its column, such as `requests/s`.
Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The median of one figure per round, and its quartiles."""

    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> "Spread":
        """Of at least one figure."""
        lower, _, upper = quantiles(figures, n=4, method="inclusive") if len(figures) > 1 else figures * 3
        return cls(median=median(figures), lower=lower, upper=upper)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """One side by the other, per round, and what it should be."""

    name: str
    per_round: Sequence[float]
    at_least: float | None = None
    at_most: float | None = None
    #: What to aim for, beyond what must be.
    aim: float | None = None

    @property
    def spread(self) -> Spread:
        """Over the rounds."""
        return Spread.of(list(self.per_round))

    @property
    def met(self) -> bool | None:
        """Whether the median is as it should be; None where nothing is asked for."""
        if self.at_least is not None:
            return self.spread.median >= self.at_least
        if self.at_most is not None:
            return self.spread.median <= self.at_most
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What one benchmark has measured."""

    title: str
    #: How it was measured, in a sentence or two.
    method: str
    #: By contestant: the figures of each round.
    figures: Mapping[str, Sequence[Figures]]
    ratios: Sequence[Ratio] = field(default_factory=tuple)


def take_turns(
    contestants: Mapping[str, Callable[[], Figures]], *, rounds: int, console: Console
) -> dict[str, list[Figures]]:
    """The figures of each round, by contestant. Each round begins with another, so that none always follows the same."""
    names = list(contestants)
    measured: dict[str, list[Figures]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            figures = contestants[name]()
            measured[name].append(figures)
            text = ", ".join(f"{figure:.4g} {column}" for column, figure in figures.items())
            console.print(f"round {number + 1} of {rounds}: {name}: {text}", highlight=False)
    return measured


def ratios_of(figures: Mapping[str, Sequence[Figures]], column: str, *, ours: str, theirs: str) -> list[float]:
    """Ours by theirs, of each round."""
    pairs = zip(figures[ours], figures[theirs], strict=True)
    return [one[column] / other[column] for one, other in pairs]


def measure_rate(
    count: Callable[[], int], *, total: int, label: str, console: Console, every_seconds: float = 0.05
) -> float:
    """How many come a second, until `count` has come to `total`; where it stands still for two minutes, it fails.

    The first fifth is left out: in it a process starts, and caches fill. The last look is left out too: it comes at any
    time after the end.
    """
    seen: list[tuple[float, int]] = []
    with a_progress(console) as progress:
        bar = progress.add_task(label, total=total)
        moved_at = time.monotonic()
        while not seen or seen[-1][1] < total:
            seen.append((time.monotonic(), count()))
            progress.update(bar, completed=seen[-1][1])
            if len(seen) < 2 or seen[-1][1] > seen[-2][1]:
                moved_at = time.monotonic()
            assert time.monotonic() - moved_at < 120, f"{label}: stands still at {seen[-1][1]} of {total}"
            time.sleep(every_seconds)
    assert seen[-1][1] == total, f"{label}: {seen[-1][1]} have come, of {total}"
    steady = [(at, done) for at, done in seen if total / 5 <= done < total]
    if len(steady) < 2 or steady[-1][1] == steady[0][1]:
        # So fast that hardly anything was seen in between.
        begun = max((at for at, done in seen if done == 0), default=seen[0][0])
        return total / (seen[-1][0] - begun)
    (began, before), (ended, after) = steady[0], steady[-1]
    return (after - before) / (ended - began)


@contextlib.contextmanager
def a_progress(console: Console) -> Iterator[Progress]:
    """Bars, which vanish when they are full."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield progress


def percentile(figures: Sequence[float], percent: float) -> float:
    """The smallest figure that at least so many percent of all do not exceed."""
    ordered = sorted(figures)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def cpu_seconds(pid: int) -> float:
    """What a process and its descendants have used so far, in user and kernel mode, with children that have ended."""
    ticks = 0
    for process in process_tree(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            # utime, stime, cutime, cstime: proc_pid_stat(5)
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_mebibytes(pid: int) -> float:
    """The resident sets of a process and its descendants, added up: pages that they share count once for each."""
    pages = 0
    for process in process_tree(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1024**2


def process_tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in map(int, file.read_text().split()):
                found += process_tree(child)
    return found


def cpu_of_command(*command: str | Path, environment: Mapping[str, str] | None = None) -> float:
    """The seconds of CPU that a command takes which ends by itself, and well."""
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        assert child.returncode == 0, f"{command} failed: {output.read().decode()}"
    return used.ru_utime + used.ru_stime
