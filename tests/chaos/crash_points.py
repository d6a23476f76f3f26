"""Writes the section `crash-points` of docs/reliability.md: `python -m tests.chaos.crash_points REPORT_OF_PYTEST`."""

import re
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from tests.chaos.page import describe_run, write_section

_FOUNDATIONS = {"embedded": "embedded", "servers": "RabbitMQ and PostgreSQL"}


def main(report: Path) -> None:
    """Count how often each point was passed and failed, over both foundations."""
    kills: Counter[tuple[str, str]] = Counter()
    failed = 0
    for case in ElementTree.parse(report).iter("testcase"):
        if found := re.search(r"\[(\w+), (.*)-\d+\]$", case.get("name", "")):
            kills[found[2], found[1]] += 1
            failed += case.find("failure") is not None or case.find("error") is not None
    points = sorted({point for point, _ in kills})
    rows = [f"| {point} | {' | '.join(str(kills[point, one] or '') for one in _FOUNDATIONS)} |" for point in points]
    lines = [
        describe_run("make crash-points"),
        "",
        f"{kills.total()} kills, {failed} of them with anything lost, done twice or left undone.",
        "",
        f"| killed | {' | '.join(_FOUNDATIONS.values())} |",
        "|---|---|---|",
        *rows,
    ]
    write_section("crash-points", "\n".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
