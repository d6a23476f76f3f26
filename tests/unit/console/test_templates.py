"""The templates hold to the console's Content-Security-Policy, under which browsers run nothing inline."""

import re
from pathlib import Path

import pytest

CONSOLE = Path(__file__).parents[3] / "service" / "console"
SOURCES = [*(CONSOLE / "templates").iterdir(), *CONSOLE.glob("*.py")]

# What htmx makes functions of: hx-on, values and headers that begin with js:, and the filters of triggers.
_EVALUATED = r"""hx-on|["']js:|javascript:|hx-trigger=["'][^"']*\["""
_INLINE = r"""<style|\sstyle=["']|\son[a-z]+=["']|<script(?![^>]*\ssrc=)"""


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_nothing_is_written_that_a_browser_would_have_to_evaluate(source: Path) -> None:
    assert re.findall(f"{_EVALUATED}|{_INLINE}", source.read_text()) == []


def test_htmx_adds_no_style_sheet_of_its_own() -> None:
    assert '"includeIndicatorCSS": false' in (CONSOLE / "templates" / "base.html").read_text()
