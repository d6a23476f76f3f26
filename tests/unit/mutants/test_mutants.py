"""`make mutants` can be run: every guard is where its mutant looks for it, and every named test is there."""

from pathlib import Path

import pytest

from tests.mutants.mutants import MUTANTS, Edit, GuardGone, Mutant

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutants_guard_and_its_tests_are_there(mutant: Mutant) -> None:
    for edit in mutant.edits:
        without = edit.apply((REPOSITORY / edit.file).read_text())
        compile(without, edit.file, "exec")
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (REPOSITORY / file).read_text() or not name


@pytest.mark.parametrize("text", ["", "a guard, and again a guard"])
def test_a_guard_that_is_gone_or_not_the_only_one_is_an_error_that_shows_it(text: str) -> None:
    with pytest.raises(GuardGone, match="a guard"):
        Edit("service/file.py", "a guard", "").apply(text)
