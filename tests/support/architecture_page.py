"""The part of docs/architecture.md that lists the files a callback passes through.

`python -m tests.support.architecture_page` writes it. What is not between the two markers is written by hand.
"""

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.callback_path import Leg, trace_callback

_REPOSITORY = Path(__file__).parents[2]
PAGE = _REPOSITORY / "docs" / "architecture.md"
_BEGIN, _END = "<!-- path: begin -->\n", "<!-- path: end -->\n"

_TITLES = {
    Leg.RECEIVE: "From the socket to the queue: `run receiver`",
    Leg.RECORD: "From the queue to the outbox: `run ledger`",
    Leg.DELIVER: "From the outbox to the webhook: `run dispatcher`",
    Leg.INQUIRE: "An inquiry, from the inquiry queue to the outbox: `run inquirer`",
}
# What every package stands on. These files are listed below the path, and do not count as part of it.
_FOUNDATIONS = ("service/domain/", "service/contracts/", "service/config/", "service/runtime/")
_METRICS = "service/runtime/metrics/"


def files_on_path(files: Sequence[str]) -> list[str]:
    """Of the called files those that are the path itself, without what every package stands on."""
    return [name for name in files if not name.startswith(_FOUNDATIONS)]


def make_page(legs: Mapping[Leg, Sequence[str]], page: str) -> str:
    """`page` with the list that belongs between its markers."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert begin, f"{PAGE.name} lacks {_BEGIN!r}"
    assert end, f"{PAGE.name} lacks {_END!r}"
    return before + begin + "\n".join(_describe(leg, files) for leg, files in legs.items()) + end + after


def _describe(leg: Leg, files: Sequence[str]) -> str:
    path = files_on_path(files)
    foundations = [name for name in files if name not in path and not name.startswith(_METRICS)]
    metrics = [name for name in files if name.startswith(_METRICS)]
    lines = [
        f"### {_TITLES[leg]}\n",
        f"{len(path)} files:\n",
        *(f"{number}. {_link(name)}: {_purpose(name)}" for number, name in enumerate(path, 1)),
        f"\nThey use {', '.join(map(_link, foundations))}.",
        f"Metrics: {', '.join(map(_link, metrics))}.\n",
    ]
    return "\n".join(lines)


def _link(name: str) -> str:
    return f"[`{name.removeprefix('service/')}`](../{name})"


def _purpose(name: str) -> str:
    docstring = ast.get_docstring(ast.parse((_REPOSITORY / name).read_text(encoding="utf-8")))
    assert docstring, f"{name} has no docstring"
    return " ".join(docstring.partition("\n\n")[0].split())


def main() -> None:
    PAGE.write_text(make_page(trace_callback(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
