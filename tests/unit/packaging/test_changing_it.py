"""docs/changing-it.md sends its readers to files that exist, for names that are in them."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
PAGE = (REPOSITORY / "docs" / "changing-it.md").read_text(encoding="utf-8")
RECIPES = PAGE.split("\n## ")[1:]


def paths_in(text: str) -> list[Path]:
    """The files and folders that are named there."""
    named = re.findall(r"`([\w./-]+)`", text)
    return [REPOSITORY / name for name in named if "/" in name or name.endswith((".py", ".json", ".md", ".toml"))]


def test_every_file_exists() -> None:
    assert len(paths_in(PAGE)) > 40
    assert [str(path) for path in paths_in(PAGE) if not path.exists()] == []


@pytest.mark.parametrize("recipe", RECIPES, ids=[recipe.partition("\n")[0] for recipe in RECIPES])
def test_every_name_of_code_is_in_one_of_the_files_of_its_recipe(recipe: str) -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in paths_in(recipe) if path.is_file())
    names = re.findall(r"`(_\w+|[A-Z]\w+)`", recipe)
    assert [name for name in names if not re.search(rf"\b{name}\b", code)] == []
