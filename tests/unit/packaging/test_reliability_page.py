"""docs/reliability.md names only tests that exist, and has the sections that commands write."""

import ast
import re
from pathlib import Path

import pytest

from tests.chaos.page import PAGE, write_section

_REPOSITORY = Path(__file__).parents[3]
_TEXT = PAGE.read_text(encoding="utf-8")
_TESTS = re.findall(r"`(tests/[\w./]+\.py)::(\w+)`", _TEXT)


def test_every_promise_names_a_test() -> None:
    table = _TEXT.partition("## What is promised")[2].partition("\n## ")[0]
    promises = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert len(promises) > 10
    assert [promise for promise in promises if "::test_" not in promise] == []


@pytest.mark.parametrize(("path", "name"), _TESTS, ids=[name for _, name in _TESTS])
def test_a_test_that_shows_a_promise_exists(path: str, name: str) -> None:
    tree = ast.parse((_REPOSITORY / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", ["chaos", "soak", "crash-points", "mutants"])
def test_a_command_can_write_its_section_and_changes_nothing_else(name: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(_TEXT, encoding="utf-8")
    write_section(name, "New figures.", page=page)
    kept = re.sub(rf"(?s)<!-- {name}: begin -->\n.*<!-- {name}: end -->\n", "", _TEXT)
    written = page.read_text(encoding="utf-8")
    assert written.replace(f"<!-- {name}: begin -->\nNew figures.\n<!-- {name}: end -->\n", "") == kept


def test_a_section_that_the_page_lacks_is_an_error_that_says_what_to_add(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(_TEXT, encoding="utf-8")
    with pytest.raises(ValueError, match="<!-- nothing: begin -->"):
        write_section("nothing", "New figures.", page=page)
