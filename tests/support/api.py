"""Calls the internal API over HTTP, and holds every answer to the document that it serves."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import quote

import urllib3

from tests.support.waiting import HANGS_AFTER_SECONDS

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}
_NOT_CHECKED = {"description", "example", "title", "format", "default", "writeOnly", "readOnly"}
_CHECKED = {
    *("$ref", "type", "enum", "properties", "required", "additionalProperties", "items"),
    *("minLength", "maxLength", "anyOf", "minimum", "maximum", "minItems", "maxItems"),
}


class OpenApi:
    """One document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document

    @property
    def operations(self) -> set[tuple[str, str]]:
        """(method, path) of every operation."""
        return {
            (method.upper(), path)
            for path, methods in self.document["paths"].items()
            for method in methods
            if method != "parameters"
        }

    def check_answer(self, method: str, path: str, *, status: int, content_type: str, value: Any) -> None:
        """An AssertionError unless the document allows this answer of the operation; `path` is a real one."""
        operation = self.document["paths"][self._find(path)][method.lower()]
        answers = operation["responses"]
        assert str(status) in answers, f"{method} {path} is not said to answer {status}: {value}"
        content = answers[str(status)]["content"]
        assert content_type in content, f"{method} {path} {status} is not said to be {content_type}"
        faults = list(self._find_faults(content[content_type]["schema"], value, "answer"))
        assert not faults, f"{method} {path} {status}: {faults}"

    def resolve(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """The schema that a `$ref` names, or the schema itself."""
        if "$ref" not in schema:
            return schema
        found: Any = self.document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return {**found, **{name: value for name, value in schema.items() if name != "$ref"}}

    def _find(self, path: str) -> str:
        for template in sorted(self.document["paths"], key=lambda template: template.count("{")):
            pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template))
            if re.fullmatch(pattern, path.partition("?")[0]):
                return str(template)
        raise AssertionError(f"no path of the document fits {path}")

    def _find_faults(self, schema: Mapping[str, Any], value: Any, where: str) -> Iterator[str]:
        schema = self.resolve(schema)
        if not schema:  # allows any value
            return
        unknown = set(schema) - _CHECKED - _NOT_CHECKED
        assert not unknown, f"{where}: the document uses {unknown}, which nobody checks"
        if "anyOf" in schema:
            tried = [list(self._find_faults(one, value, where)) for one in schema["anyOf"]]
            if all(tried):
                yield from tried[0]
        if "type" in schema:
            allowed = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            is_boolean = isinstance(value, bool)
            if not any(isinstance(value, _TYPES[name]) and is_boolean == (name == "boolean") for name in allowed):
                yield f"{where}: {value!r} is not {allowed}"
                return
        if "enum" in schema and value not in schema["enum"]:
            yield f"{where}: {value!r} is not one of {schema['enum']}"
        if isinstance(value, dict) and "anyOf" not in schema:
            yield from self._find_faults_in_object(schema, value, where)
        if isinstance(value, list) and "items" in schema:
            for position, item in enumerate(value):
                yield from self._find_faults(schema["items"], item, f"{where}[{position}]")
        if isinstance(value, str) and not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**9):
            yield f"{where}: {len(value)} characters"

    def _find_faults_in_object(self, schema: Mapping[str, Any], value: Mapping[str, Any], where: str) -> Iterator[str]:
        known = schema.get("properties", {})
        for name in set(schema.get("required", ())) - set(value):
            yield f"{where}.{name}: missing"
        for name, inner in value.items():
            if name in known:
                yield from self._find_faults(known[name], inner, f"{where}.{name}")
            elif schema.get("additionalProperties", False) is not False:
                yield from self._find_faults(schema["additionalProperties"], inner, f"{where}.{name}")
            else:
                yield f"{where}.{name}: not in the document"


#: What the API's settings in tests know the caller "shop" by.
TOKEN = "the token of the shop, for tests".replace(" ", "-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back, decoded."""

    status: int
    value: Any


class ApiCaller:
    """One caller. Every answer is checked against /openapi.json."""

    _openapi: ClassVar[OpenApi | None] = None

    def __init__(self, *, url: str, token: str = TOKEN) -> None:
        self.url = url
        self._headers = {"Authorization": f"Bearer {token}"}
        self._http = urllib3.PoolManager(retries=False, timeout=HANGS_AFTER_SECONDS)

    @property
    def openapi(self) -> OpenApi:
        """The document that every API of this release serves."""
        if ApiCaller._openapi is None:
            ApiCaller._openapi = OpenApi(self._http.request("GET", f"{self.url}/openapi.json").json())
        return ApiCaller._openapi

    def get(self, path: str) -> Answer:
        """GET it."""
        return self._call("GET", path, None)

    def post(self, path: str, body: Any = None) -> Answer:
        """POST `body` as JSON; None sends none."""
        return self._call("POST", path, body)

    def announce(self, *orders: dict[str, Any]) -> Answer:
        """Announce orders."""
        return self.post("/v1/orders", {"orders": list(orders)})

    def close(self) -> None:
        """Close its connections."""
        self._http.clear()

    def _call(self, method: str, path: str, body: Any) -> Answer:
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        response = self._http.request(
            method, self.url + path, headers=headers, body=None if body is None else json.dumps(body)
        )
        content_type = response.headers["content-type"]
        value = json.loads(response.data)
        self.openapi.check_answer(method, path, status=response.status, content_type=content_type, value=value)
        return Answer(status=response.status, value=value)


def order_path(merchant: str, biz_order_no: str, *, below: str = "") -> str:
    """An order's path, percent-encoded."""
    return f"/v1/orders/{merchant}/{quote(biz_order_no, safe='')}{below}"
