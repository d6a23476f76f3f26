"""Turns, ratios of one round, and what processes use."""

import contextlib
import math
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

from tests.support.processes import descendants_of

_LOOK_SECONDS = 0.05
_MAX_SECONDS_STILL = 120

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
        lower, _, upper = quantiles(figures, n=4, method="inclusive") if len(figures) > 1 else [*figures] * 3
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
    #: When, of which revision, and beside which load.
    measured: str = ""


def take_turns(
    contestants: Mapping[str, Callable[[], Figures]], *, rounds: int, console: Console
) -> dict[str, list[Figures]]:
    """The figures of each round, by contestant. Each round begins with another one."""
    names = list(contestants)
    measured: dict[str, list[Figures]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            figures = contestants[name]()
            measured[name].append(figures)
            text = "; ".join(f"{column} {figure:.4g}" for column, figure in figures.items())
            console.print(f"round {number + 1} of {rounds}: {name}: {text}", highlight=False, soft_wrap=True)
    return measured


def ratios_of(figures: Mapping[str, Sequence[Figures]], column: str, *, ours: str, theirs: str) -> list[float]:
    """Ours by theirs, of each round."""
    pairs = zip(figures[ours], figures[theirs], strict=True)
    return [one[column] / other[column] for one, other in pairs]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How fast processes have worked."""

    per_second: float
    cpu_ms_each: float


def measure_rate(count: Callable[[], int], *, total: int, pids: Sequence[int], label: str, console: Console) -> Rate:
    """Sample until `count` has come to `total`; fail where it goes beyond, or stands still for two minutes.

    The first fifth is left out: in it processes start, and caches fill. The last look is left out too, since it comes
    at any time after the end.
    """
    looks: list[_Look] = []
    with a_progress(console) as progress:
        bar = progress.add_task(label, total=total)
        moved_at = time.monotonic()
        while not looks or looks[-1].done < total:
            asked_at = time.monotonic()
            done = count()
            now = time.monotonic()
            if not looks or done > looks[-1].done:
                moved_at = now
            looks.append(_Look(at=now, done=done, cpu=sum(map(cpu_seconds, pids))))
            progress.update(bar, completed=done)
            assert now - moved_at < _MAX_SECONDS_STILL, f"{label}: stands still at {done} of {total}"
            # Looking must not cost what is looked at more than a few percent.
            time.sleep(max(_LOOK_SECONDS, 20 * (now - asked_at)))
    assert looks[-1].done == total, f"{label}: {looks[-1].done} have come, of {total}"
    steady = [look for look in looks if total / 5 <= look.done < total]
    if len(steady) < 2 or steady[0].done == steady[-1].done:
        # Nearly all came between two looks: this is right only for trying a benchmark out.
        steady = [next((look for look in reversed(looks) if look.done < total / 5), looks[0]), looks[-1]]
    first, last = steady[0], steady[-1]
    done = max(1, last.done - first.done)
    return Rate(per_second=done / (last.at - first.at), cpu_ms_each=(last.cpu - first.cpu) * 1000 / done)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    at: float
    done: int
    cpu: float


@contextlib.contextmanager
def a_progress(console: Console) -> Iterator[Progress]:
    """Bars, which vanish when they are full."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress


def percentile(figures: Sequence[float], percent: float) -> float:
    """The smallest figure that at least so many percent of all do not exceed."""
    ordered = sorted(figures)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


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
    return [pid, *descendants_of(pid)]


def cpu_of_command(*command: str | Path, environment: Mapping[str, str] | None = None) -> float:
    """The seconds of CPU that a command takes which ends by itself, and well."""
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        assert child.returncode == 0, f"{command} failed: {output.read().decode()}"
    return used.ru_utime + used.ru_stime
