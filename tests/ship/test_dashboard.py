"""The dashboard: what Grafana's own library reads of it, and what Prometheus makes of its expressions."""

import json
import re
import subprocess
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.support.chart import CHART

Node = dict[str, Any]

# Those of Grafana that it uses: https://github.com/grafana/grafana/blob/main/packages/grafana-data/src/valueFormats
_UNITS = {"s", "short", "cps", "reqps"}
_COLUMNS = 24


@pytest.fixture
def dashboard() -> Node:
    read: Node = json.loads((CHART / "files" / "dashboard.json").read_text())
    return read


@pytest.fixture
def panels(dashboard: Node) -> list[Node]:
    """Those that show something."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def test_grafanas_own_library_knows_every_key_of_it(dashboard: Node) -> None:
    """It passes over what it does not know, so nothing may be lost on the way through it."""
    plugins.register_default_plugins()
    understood = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    assert _kept(dashboard, understood) == dashboard


def _kept(written: Any, understood: Any) -> Any:
    """What is left of `written`, without the defaults that the library adds."""
    if isinstance(written, dict):
        return {key: _kept(value, understood[key]) for key, value in written.items() if key in understood}
    if isinstance(written, list):
        return [_kept(*both) for both in zip(written, understood, strict=True)]
    return understood


def test_every_panel_has_a_number_of_its_own_and_a_word_of_explanation(dashboard: Node, panels: list[Node]) -> None:
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(numbers) == len(set(numbers))
    for panel in panels:
        assert panel["description"], panel["title"]


def test_no_panel_lies_on_another_or_over_the_edge(dashboard: Node) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= _COLUMNS, panel["title"]
        for cell in product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])):
            assert taken.setdefault(cell, panel["title"]) == panel["title"]


def test_it_reads_from_top_to_bottom_as_one_callbacks_way(dashboard: Node) -> None:
    rows = [panel for panel in dashboard["panels"] if panel["type"] == "row"]
    assert [row["title"] for row in rows] == [
        "0. Overview",
        "1. The callback arrives",
        "2. It is queued",
        "3. It is recorded",
        "4. It changes its order",
        "5. Or the gateway is queried",
        "6. Events are delivered",
    ]
    assert all(above["gridPos"]["y"] < below["gridPos"]["y"] for above, below in pairwise(rows))
    assert [panel["gridPos"]["y"] for panel in dashboard["panels"]] == sorted(
        panel["gridPos"]["y"] for panel in dashboard["panels"]
    )


def test_every_panel_reads_the_prometheus_that_is_chosen_above(dashboard: Node, panels: list[Node]) -> None:
    assert [(choice["name"], choice["type"]) for choice in dashboard["templating"]["list"]] == [
        ("datasource", "datasource")
    ]
    for panel in panels:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in _UNITS, panel["title"]
        assert panel["targets"], panel["title"]
        names = [target["refId"] for target in panel["targets"]]
        assert len(names) == len(set(names)), panel["title"]


def test_every_legend_names_labels_that_its_expression_keeps(panels: list[Node]) -> None:
    for panel in panels:
        for target in panel["targets"]:
            kept = {name for names in re.findall(r"by \(([^)]*)\)", target["expr"]) for name in names.split(", ")}
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= kept, target["expr"]


def test_prometheus_understands_every_expression(panels: list[Node], tmp_path: Path) -> None:
    expressions = [target["expr"].replace("$__rate_interval", "5m") for panel in panels for target in panel["targets"]]
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(expressions)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(expressions)} rules found" in done.stdout
