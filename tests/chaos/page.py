"""Sections of docs/reliability.md that commands write: `write_section`.

A section is what stands between the lines `<!-- NAME: begin -->` and `<!-- NAME: end -->`. Its name is that of the
target that writes it: `chaos`, `soak`, `crash-points` or `mutants`.
"""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

_REPOSITORY = Path(__file__).parents[2]
PAGE = _REPOSITORY / "docs" / "reliability.md"


def write_section(name: str, text: str, *, page: Path = PAGE) -> None:
    """Write `text` (Markdown, without a heading) as the section `name` of the page. Nothing else on it is changed.

    A ValueError where the page has no such section.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(f"<!-- {name}: begin -->\n")
    _, end, after = rest.partition(f"<!-- {name}: end -->\n")
    if not begin or not end:
        raise ValueError(f"{page}: add the lines `<!-- {name}: begin -->` and `<!-- {name}: end -->`")
    page.write_text(f"{before}{begin}{text.strip()}\n{end}{after}", encoding="utf-8")


def describe_run(command: str) -> str:
    """Say in a sentence which command was run, when, of which revision, with which versions and on what machine."""
    revision = _output("git", "-C", str(_REPOSITORY), "describe", "--always", "--dirty")
    rabbitmq = _output("dpkg-query", "--showformat", "${source:Upstream-Version}", "--show", "rabbitmq-server")
    postgresql = max(Path("/usr/lib/postgresql").glob("*"), key=lambda folder: int(folder.name)).name
    return (
        f"Written by `{command}` on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC at revision {revision}, with Python "
        f"{platform.python_version()}, RabbitMQ {rabbitmq} and PostgreSQL {postgresql}, on {os.cpu_count()} processors."
    )


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "(unknown)"
