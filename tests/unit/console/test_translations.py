"""The catalogues of the console's languages, against its texts. `make translations` adds what is missing."""

import ast
import io
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

REPOSITORY = Path(__file__).parents[3]
CONSOLE = REPOSITORY / "service" / "console"


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"%\(\w+\)s|%%|<[^>]*>", text))


def forms(text: str | Sequence[str] | None) -> Sequence[str]:
    """A text's singular and plurals; the text alone where it has none."""
    return [text or ""] if text is None or isinstance(text, str) else text


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """All texts of the console, as the makefile finds them."""
    file = tmp_path_factory.mktemp("texts") / "messages.pot"
    options = ["--mapping", "pyproject.toml", "--keywords", "lazy_gettext", "--output-file", str(file), str(CONSOLE)]
    pybabel = [sys.executable, "-m", "babel.messages.frontend", "--quiet"]
    subprocess.run([*pybabel, "extract", *options], check=True, cwd=REPOSITORY)
    return read_po(io.BytesIO(file.read_bytes()))


@pytest.fixture(params=["zh"])
def catalog(request: pytest.FixtureRequest) -> Catalog:
    file = CONSOLE / "translations" / request.param / "LC_MESSAGES" / "messages.po"
    return read_po(io.BytesIO(file.read_bytes()), locale=request.param)


def test_every_text_of_the_console_is_translated_and_nothing_else(texts: Catalog, catalog: Catalog) -> None:
    assert {message.id for message in catalog} == {message.id for message in texts}
    assert [message.id for message in catalog if not all(forms(message.string))] == []
    assert [message.id for message in catalog if message.id and message.fuzzy] == []
    assert list(catalog.obsolete) == []


def test_no_text_is_inside_an_f_string_where_it_is_not_found() -> None:
    inside = [
        ast.unparse(text)
        for file in CONSOLE.glob("*.py")
        for text in ast.walk(ast.parse(file.read_text()))
        if isinstance(text, ast.JoinedStr) and re.search(r"\b(_|[a-z]*gettext)\(", ast.unparse(text))
    ]
    assert inside == []


def test_a_translation_has_the_placeholders_and_the_tags_of_its_text(catalog: Catalog) -> None:
    for message in catalog:
        for translated in forms(message.string) if message.id else ():
            assert placeholders(translated) == placeholders(forms(message.id)[-1]), message.id


def test_the_compiled_catalogue_is_that_of_the_readable_one(catalog: Catalog) -> None:
    compiled = io.BytesIO()
    write_mo(compiled, catalog)
    folder = CONSOLE / "translations" / str(catalog.locale) / "LC_MESSAGES"
    assert (folder / "messages.mo").read_bytes() == compiled.getvalue()
