"""Callbacks as a gateway sends them, signed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import md5

from service.gateway.notify_tokens import NotifyTokenKey, NotifyTokens
from tests.support.receiver import TOKEN_KEY


@dataclass(frozen=True, slots=True, kw_only=True)
class SentCallback:
    """One request to the receiver."""

    path: str
    body: bytes

    @property
    def token(self) -> str:
        return self.path.rpartition("/")[2]


def signed_body(fields: Mapping[str, str]) -> bytes:
    """The fields and their sign as compact JSON, whose keys are sorted."""
    canonical = json.dumps(dict(sorted(fields.items())), separators=(",", ":"))
    return json.dumps({**fields, "sign": md5(canonical.encode()).hexdigest()}, separators=(",", ":")).encode()


def callback(biz_order_no: str, *, merchant: str = "by-capability", **changed: str) -> SentCallback:
    """A success of the order, on the address that was minted for it."""
    fields = {
        "biz_order_no": biz_order_no,
        "pay_order_no": f"pay-{biz_order_no}",
        "order_type": "single_withhold",
        "pay_type": "withhold",
        "pay_status": "success",
        "pay_time": "2026-07-01 12:00:00",
        "channel_response": "approved",
    }
    return SentCallback(path=minted_path(merchant, biz_order_no), body=signed_body({**fields, **changed}))


def minted_path(merchant: str, biz_order_no: str) -> str:
    """The notify_url's path for one order."""
    key = NotifyTokenKey(kid=TOKEN_KEY.kid, secret=TOKEN_KEY.key.reveal().encode())
    return f"/notify/{merchant}/{NotifyTokens(merchant=merchant, keys=[key]).mint(biz_order_no)}"
