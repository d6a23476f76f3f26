"""What runs have found, as a table in Markdown and in the words of a terminal."""

from collections.abc import Sequence

from tests.chaos.accountant import FAULTS
from tests.chaos.run import Outcome


def write_table(outcomes: Sequence[Outcome], *, names: Sequence[str]) -> str:
    """A column for each run, and a row for each figure."""
    rows = [["", *names], ["---", *["---"] * len(names)]]
    for label, figures in _figures(outcomes):
        rows.append([label, *figures])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def add_up(outcomes: Sequence[Outcome]) -> str:
    """One column for all runs: sums, and the longest times."""
    rows = [["", f"{len(outcomes)} rounds"], ["---", "---"]]
    for label, figures in _figures(outcomes):
        numbers = [float(figure.replace(",", "").removesuffix(" s")) for figure in figures]
        total = f"{max(numbers):.2f} s" if label in _LONGEST else f"{sum(numbers):,.0f}"
        rows.append([label, f"{total}{' s' if label == _TOOK else ''}"])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


_TOOK = "took"
_LONGEST = ("slowest answer", "longest time without an acknowledgement", "from the last acknowledgement to quiet")


def _figures(outcomes: Sequence[Outcome]) -> list[tuple[str, list[str]]]:
    def of(key: str) -> list[str]:
        return [f"{outcome.report[key]:,}" for outcome in outcomes]

    def seconds_of(key: str) -> list[str]:
        return [f"{outcome.report[key]:.2f} s" for outcome in outcomes]

    def sum_of(key: str) -> list[str]:
        return [f"{sum(outcome.report[key].values()):,}" for outcome in outcomes]

    return [
        ("callbacks", of("callbacks")),
        ("of these, tampered with", of("tampered")),
        ("of these, taken", of("taken")),
        ("requests", of("requests")),
        ("refused", of("refused")),
        ("unanswered", of("unanswered")),
        ("withholds requested of the API", of("withholds")),
        ("of these, charged by the gateway", of("charged")),
        ("SIGKILL", [f"{outcome.size.kills}" for outcome in outcomes]),
        ("SIGSTOP", [f"{outcome.size.freezes}" for outcome in outcomes]),
        ("replays of everything so far", [f"{outcome.size.replays}" for outcome in outcomes]),
        ("prunings, one after the other", [f"{outcome.prunings}" for outcome in outcomes]),
        ("power cuts", [f"{outcome.size.power_cuts}" for outcome in outcomes]),
        ("requests during the rolling restart", of("during_restarts")),
        ("events at all endpoints", sum_of("events")),
        ("delivered again, under the same id", sum_of("delivered_again")),
        *((f"**{name.replace('_', ' ')}**", of(name)) for name in FAULTS),
        (_LONGEST[0], seconds_of("slowest_answer_seconds")),
        (_LONGEST[1], seconds_of("longest_outage_seconds")),
        (_LONGEST[2], seconds_of("seconds_to_quiet")),
        (_TOOK, [f"{outcome.seconds:.0f} s" for outcome in outcomes]),
    ]
