"""The cases that real PHP, Node, Go, Java and Python runtimes made; see tests/vectors/vectors.json."""

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parents[1] / "vectors" / "vectors.json"


def load_vectors(kind: str) -> list[dict[str, Any]]:
    """Every case of a kind ("callback" or "request"), each `*_b64` decoded to bytes and named without the suffix."""
    return [_decode(case) for case in json.loads(_FILE.read_text()) if case["kind"] == kind]


def _decode(case: dict[str, Any]) -> dict[str, Any]:
    return {
        name.removesuffix("_b64"): b64decode(value) if name.endswith("_b64") else value for name, value in case.items()
    }
