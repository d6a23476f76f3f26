"""Calls the internal API over HTTP, and holds every answer to the document that it serves."""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import urllib3

from tests.support.openapi import OpenApi

#: What the API's settings in tests know the caller "shop" by.
TOKEN = "the token of the shop, for tests".replace(" ", "-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back, decoded."""

    status: int
    value: Any


class ApiCaller:
    """One caller. Every answer is checked against /openapi.json."""

    def __init__(self, *, url: str, token: str = TOKEN) -> None:
        self.url = url
        self._headers = {"Authorization": f"Bearer {token}"}
        self._http = urllib3.PoolManager(retries=False, timeout=30.0)
        self._openapi: OpenApi | None = None

    @property
    def openapi(self) -> OpenApi:
        """The document that the API serves."""
        if self._openapi is None:
            self._openapi = OpenApi(self._http.request("GET", f"{self.url}/openapi.json").json())
        return self._openapi

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
