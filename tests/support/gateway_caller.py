"""Calls a gateway as its document says, whatever the arguments: what a caller of any language sends."""

import json
import secrets
from collections.abc import Mapping
from typing import Any

import urllib3

from service.gateway.cipher import ArgsCipher, RequestDialect
from service.gateway.request_envelope import sign_request

WITHHOLD = {
    "amount": "10.00",
    "name": "张三",
    "id_card_number": "11010519491231002X",
    "mobile": "13800138000",
    "bank_card_number": "6222021234567890128",
    "biz_data": [],
    "pay_type": "baofoo_001",
}


class GatewayCaller:
    """One account's requests."""

    def __init__(self, *, url: str, ua: str, key: str, dialect: Mapping[str, str] | None = None) -> None:
        self._url = url
        self._ua = ua
        self._key = key
        self._dialect = RequestDialect.from_settings(dialect or {})
        self._cipher = ArgsCipher(key=key, dialect=self._dialect)

    def envelope(self, method: str, args: Mapping[str, Any]) -> dict[str, str]:
        """A signed request."""
        sealed = self._cipher.seal(args)
        return {
            "ua": self._ua,
            "args": sealed,
            "method": method,
            "requestId": secrets.token_hex(8),
            "timestamp": "1562000000",
            "sign": sign_request(
                ua=self._ua,
                key=self._key,
                method=method,
                args=sealed,
                dialect=self._dialect,
            ),
        }

    def post(self, envelope: Mapping[str, Any] | bytes) -> urllib3.BaseHTTPResponse:
        """Send anything at all."""
        body = envelope if isinstance(envelope, bytes) else json.dumps(envelope).encode()
        headers = {"Content-Type": "application/json;charset=UTF-8"}
        return urllib3.request("POST", self._url, body=body, headers=headers, retries=False, timeout=5.0)

    def call(self, method: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """The decoded answer."""
        response = self.post(self.envelope(method, args))
        assert response.status == 200, response.data
        answer: dict[str, Any] = response.json()
        return answer

    def withhold(self, biz_order_no: str, **changes: Any) -> dict[str, Any]:
        """single-withhold with good arguments, but for `changes`; None leaves one out."""
        args = {"biz_order_no": biz_order_no, **WITHHOLD, **changes}
        return self.call("single-withhold", {name: value for name, value in args.items() if value is not None})

    def query(self, biz_order_no: str) -> dict[str, Any]:
        """single-order-query."""
        return self.call("single-order-query", {"biz_order_no": biz_order_no})
