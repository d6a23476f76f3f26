"""The chart's README, made from its values' comments: `python -m tests.support.chart_readme` writes it.

A line that begins with `# --` documents the key below it, together with the comment lines that follow.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.chart import CHART

_BEGIN = "## Values\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One documented key."""

    path: tuple[str, ...]
    text: str


def make_readme(chart: Path = CHART) -> str:
    """The README as it should be: what a person wrote above `## Values`, and every value below."""
    written, begin, _ = (chart / "README.md").read_text(encoding="utf-8").partition(_BEGIN)
    assert begin, f"README.md has no line {_BEGIN!r}"
    text = (chart / "values.yaml").read_text(encoding="utf-8")
    defaults = yaml.safe_load(text)
    rows = [
        f"| `{'.'.join(value.path)}` | {_code(_default_of(value.path, defaults))} | {value.text} |"
        for value in documented_values(text)
    ]
    return "\n".join(
        [
            written + begin,
            "Generated from the comments in `values.yaml`.\n",
            "| value | default | |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def documented_values(text: str) -> Iterator[Value]:
    """Every key with a comment that begins with `# --`, in order."""
    path: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# --"):
            comment = [stripped.removeprefix("# --").strip()]
        elif stripped.startswith("#"):
            if comment:
                comment.append(stripped.removeprefix("#").strip())
        elif stripped and not stripped.startswith("-"):
            depth = (len(line) - len(line.lstrip())) // 2
            path = [*path[:depth], stripped.partition(":")[0]]
            if comment:
                yield Value(path=tuple(path), text=" ".join(comment).replace("|", "\\|"))
            comment = []


def _default_of(path: tuple[str, ...], defaults: Any) -> Any:
    for key in path:
        defaults = defaults[key]
    return defaults


def _code(value: Any) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`".replace("|", "\\|")


if __name__ == "__main__":
    (CHART / "README.md").write_text(make_readme(), encoding="utf-8")
