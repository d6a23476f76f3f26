"""The chart's README says what its values say."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from tests.support.chart import CHART, documented_values, make_readme


def test_the_readme_is_current() -> None:
    assert (CHART / "README.md").read_text(encoding="utf-8") == make_readme(), "make chart-docs"


def test_every_value_is_explained() -> None:
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    explained = {value.path for value in documented_values(text)}
    assert [path for path in leaves(yaml.safe_load(text)) if not any(path[:n] in explained for n in range(1, 9))] == []


def leaves(value: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of everything that is no mapping with something in it."""
    for key, below in value.items():
        if isinstance(below, Mapping) and below:
            yield from leaves(below, (*path, key))
        else:
            yield *path, key
