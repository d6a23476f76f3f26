"""What was measured, as a line, a page or raw figures."""

import json
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.measuring import Findings, Ratio, Spread

_REPOSITORY = Path(__file__).parents[2]
_PEERS_LOCK = _REPOSITORY / "requirements" / "peers.txt"
_NODE_LOCK = Path(__file__).parent / "peers" / "package-lock.json"

#: A page keeps what is between these when it is written anew.
BY_HAND = ("<!-- written by hand: begin -->", "<!-- written by hand: end -->")

_OWN_PACKAGES = ("flask", "gunicorn", "pika", "marshmallow", "sqlalchemy", "psycopg")
_PEERS_PACKAGES = ("fastapi", "uvicorn", "aio-pika")
_NODE_PACKAGES = ("fastify", "amqplib")


def line(ratio: Ratio) -> str:
    """A ratio in one line: its name, the median, the quartiles, what it should be."""
    spread = ratio.spread
    words = [f"{ratio.name}: {_number(spread.median)} ({_number(spread.lower)} to {_number(spread.upper)})"]
    if target := _target(ratio):
        words.append(f"{target}{' NOT MET' if ratio.met is False else ''}")
    return "; ".join(words)


def write_raw(path: Path, findings: Sequence[Findings]) -> None:
    """Every figure of every round, as JSON."""
    path.write_text(json.dumps([asdict(each) for each in findings], indent=2, ensure_ascii=False) + "\n")


def read_raw(path: Path) -> list[Findings]:
    """What `write_raw` has written; nothing where there is no such file."""
    if not path.exists():
        return []
    return [
        Findings(**{**each, "ratios": [Ratio(**ratio) for ratio in each["ratios"]]})
        for each in json.loads(path.read_text())
    ]


def describe_run(load_before: tuple[float, ...]) -> str:
    """When something was measured, of which revision, and beside which load."""
    revision = _output("git", "-C", str(_REPOSITORY), "describe", "--always", "--dirty")
    load = f"load average {load_before[0]:.2f} before and {os.getloadavg()[0]:.2f} after (1 minute)"
    return f"Measured on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC at revision {revision}, {load}."


def write_page(path: Path, findings: Sequence[Findings], *, command: str) -> None:
    """The page in Markdown. What was written by hand stays."""
    by_hand = f"{BY_HAND[0]}\n{_read_by_hand(path)}\n{BY_HAND[1]}"
    parts = [
        "# Performance",
        f"Written by `{command}`. A figure is the median over the rounds, with its quartiles; a ratio is taken in each "
        "round, and its median is what counts.",
        by_hand,
        "## Machine and versions",
        _describe_machine(),
        "## Ratios",
        _ratio_table([ratio for each in findings for ratio in each.ratios]),
        *(f"## {each.title}\n\n{each.method} {each.measured}\n\n{_figure_table(each)}" for each in findings),
    ]
    path.write_text("\n\n".join(parts) + "\n")


def _read_by_hand(path: Path) -> str:
    if not path.exists():
        return ""
    text = path.read_text()
    found = re.search(f"{re.escape(BY_HAND[0])}\n(.*)\n{re.escape(BY_HAND[1])}", text, re.DOTALL)
    assert found is not None, f"{path}: what is to stay goes between the lines {BY_HAND[0]} and {BY_HAND[1]}"
    return found[1]


def _ratio_table(ratios: Sequence[Ratio]) -> str:
    rows = [
        [
            ratio.name,
            f"**{_number(ratio.spread.median)}**",
            _quartiles(ratio.spread, rounds=len(ratio.per_round)),
            _target(ratio),
            {True: "yes", False: "no", None: ""}[ratio.met],
        ]
        for ratio in ratios
    ]
    return _table(["ratio", "median", "quartiles", "asked for", "met"], rows)


def _figure_table(findings: Findings) -> str:
    columns = list(dict.fromkeys(column for turns in findings.figures.values() for column in turns[0]))
    rows = []
    for name, turns in findings.figures.items():
        cells = [name]
        for column in columns:
            spread = Spread.of([turn[column] for turn in turns])
            quartiles = _quartiles(spread, rounds=len(turns))
            cells.append(f"{_number(spread.median)} ({quartiles})" if quartiles else _number(spread.median))
        rows.append(cells)
    return _table(["", *columns], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _target(ratio: Ratio) -> str:
    parts = []
    if ratio.at_least is not None:
        parts.append(f"at least {_number(ratio.at_least)}")
    if ratio.at_most is not None:
        parts.append(f"at most {_number(ratio.at_most)}")
    if ratio.aim is not None:
        parts.append(f"aim {_number(ratio.aim)}")
    return ", ".join(parts)


def _quartiles(spread: Spread, *, rounds: int) -> str:
    return f"{_number(spread.lower)} to {_number(spread.upper)}" if rounds > 1 else ""


def _number(figure: float) -> str:
    if abs(figure) >= 100:
        return f"{figure:,.0f}"
    return f"{figure:.1f}" if abs(figure) >= 10 else f"{figure:.2f}"


def _describe_machine() -> str:
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    rows = [
        ["processors", f"{os.cpu_count()} x {_processor()}, shared by servers, load and receivers"],
        ["memory", f"{int(memory[1]) / 1024**2:.1f} GiB" if memory else ""],
        ["system", f"{platform.freedesktop_os_release().get('PRETTY_NAME', '')}, Linux {platform.release()}"],
        ["Python", platform.python_version()],
        [
            "servers",
            ", ".join(filter(None, [*map(_package_version, ("rabbitmq-server", "wrk")), _postgresql_version()])),
        ],
        ["Node", _output("node", "--version")],
        ["packages of ours", ", ".join(f"{name} {version(name)}" for name in _OWN_PACKAGES)],
        ["packages of the peers", ", ".join([*_locked_versions(), *_node_versions()])],
    ]
    return _table(["", ""], rows)


def _processor() -> str:
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def _package_version(name: str) -> str:
    found = _output("dpkg-query", "--showformat", "${Version}", "--show", name)
    return f"{name} {found}" if found else ""


def _postgresql_version() -> str:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return _output(str(programs[-1]), "--version") if programs else ""


def _locked_versions() -> list[str]:
    pins = dict(re.findall(r"^(\S+)==(\S+)", _PEERS_LOCK.read_text(), re.MULTILINE))
    return [f"{name} {pins[name]}" for name in (*_PEERS_PACKAGES, "flask", "gunicorn", "pika")]


def _node_versions() -> list[str]:
    packages = json.loads(_NODE_LOCK.read_text())["packages"]
    return [f"{name} {packages[f'node_modules/{name}']['version']}" for name in _NODE_PACKAGES]


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
