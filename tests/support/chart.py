"""The Helm chart, rendered by the real helm."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "helm" / "payment-callbacks"
#: By name, the values that are rendered in tests; "default" is what `helm install` does with none.
VALUE_SETS: Mapping[str, Path | None] = {
    "default": None,
    **{path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*-values.yaml"))},
}

Manifest = dict[str, Any]


class HelmError(Exception):
    """Helm refused; its message is what it wrote."""


def helm(*arguments: str | Path, stdin: str = "") -> str:
    """Run helm (HELM, else the one beside this Python) and return what it writes. Raises HelmError."""
    program = os.environ.get("HELM") or Path(sys.executable).with_name("helm")
    assert Path(program).exists(), f"{program} is not there: `make test-ship` fetches it, or set HELM"
    done = subprocess.run([program, *arguments], input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HelmError(done.stderr)
    return done.stdout


def render(
    values: str | Path | None, *, overrides: Mapping[str, Any] | None = None, chart: Path = CHART
) -> list[Manifest]:
    """The manifests of a release `pc` in the namespace `pay`, from one of VALUE_SETS or a file, and further values."""
    path = VALUE_SETS[values] if isinstance(values, str) else values
    text = _render(path, json.dumps(dict(overrides or {})), chart)
    return [manifest for manifest in yaml.safe_load_all(text) if manifest]


@cache
def _render(values: Path | None, overrides: str, chart: Path) -> str:
    files = ["--values", str(values)] if values else []
    return helm("template", "pc", chart, "--namespace", "pay", *files, "--values", "-", stdin=overrides)


def find(manifests: Iterable[Manifest], kind: str, name: str = "") -> Manifest:
    """The one manifest of a kind whose name ends so."""
    (found,) = [item for item in find_all(manifests, kind) if item["metadata"]["name"].endswith(name)]
    return found


def find_all(manifests: Iterable[Manifest], kind: str) -> list[Manifest]:
    """All of a kind."""
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def pod_specs(manifests: Iterable[Manifest]) -> dict[str, Manifest]:
    """The spec of every pod that would come to be, by `kind/name` of what makes it."""
    specs = {}
    for manifest in manifests:
        name = f"{manifest['kind']}/{manifest['metadata']['name']}"
        if manifest["kind"] == "Pod":
            specs[name] = manifest["spec"]
        elif manifest["kind"] in ("Deployment", "StatefulSet", "Job"):
            specs[name] = manifest["spec"]["template"]["spec"]
        elif manifest["kind"] == "CronJob":
            specs[name] = manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return specs


def settings_of(manifests: Iterable[Manifest]) -> dict[str, str]:
    """The settings' documents, by file name."""
    documents: dict[str, str] = find(manifests, "ConfigMap", "-settings")["data"]
    return documents
