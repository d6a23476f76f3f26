"""Renders a planned callback: address, body and sign."""

from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode, urlsplit, urlunsplit
from zoneinfo import ZoneInfo

from service.gateway.bodies import JsonValue
from service.gateway.json_dialects import JsonDialect, KeyOrder, find_dialect, find_writer
from service.gateway.signature import sign_callback
from service.sandbox.callback_plan import Address, PlannedCallback
from service.sandbox.orders import SandboxOrder
from service.sandbox.script import PayStatus
from service.sandbox.settings import CallbackStyle

#: The time zone of the gateway's times. Its document names none.
GATEWAY_TIME_ZONE = ZoneInfo("Asia/Shanghai")

_ORDER_TYPE = "single_withhold"


@dataclass(frozen=True, slots=True)
class RenderedCallback:
    """One HTTP POST."""

    url: str
    content_type: str
    body: bytes


class CallbackRenderer:
    """Renders callbacks in one style. Raises DialectInvalid, at once, where the style names an unknown dialect."""

    def __init__(self, style: CallbackStyle) -> None:
        self._style = style
        self._signed_as = find_dialect(style.signed_as)
        writer = find_writer(style.sent_as) if style.sent_as else self._signed_as.writer
        self._sent_as = JsonDialect(writer=writer, key_order=KeyOrder.AS_SENT)

    def render(self, callback: PlannedCallback, *, other_order: SandboxOrder | None) -> RenderedCallback:
        """Render and sign a callback. A forger uses the address of `other_order`; without one, an invented address."""
        fields = callback_fields(callback)
        sign = sign_callback(fields, self._signed_as)
        fields["sign"] = sign.upper() if self._style.upper_case_sign else sign
        url = address_of(callback, other_order)
        if self._style.form:
            return RenderedCallback(url, "application/x-www-form-urlencoded", urlencode(fields).encode())
        return RenderedCallback(url, "application/json;charset=UTF-8", self._sent_as.write(fields))


def callback_fields(callback: PlannedCallback) -> dict[str, JsonValue]:
    """The fields of the document's 5. 异步回调 without the sign, in its order."""
    order = callback.order
    return {
        "biz_order_no": order.biz_order_no,
        "pay_order_no": callback.pay_order_no,
        "order_type": _ORDER_TYPE,
        "pay_type": order.pay_type,
        "pay_status": callback.pay_status.value,
        "pay_time": pay_time(callback.pay_status, order.settles_at),
        "channel_response": order.channel_response(callback.pay_status),
    }


def pay_time(status: PayStatus, settles_at: datetime | None) -> str:
    """`pay_time` as the gateway writes it: empty unless the order succeeded."""
    if status is not PayStatus.SUCCESS or settles_at is None:
        return ""
    return f"{settles_at.astimezone(GATEWAY_TIME_ZONE):%Y-%m-%d %H:%M:%S}"


def address_of(callback: PlannedCallback, other_order: SandboxOrder | None) -> str:
    """The address of the callback. The token is assumed to be the last segment of the notify_url's path."""
    own = callback.order.notify_url
    match callback.address:
        case Address.OWN:
            return own
        case Address.WITHOUT_TOKEN:
            return _with_last_segment(own, None)
        case Address.OTHER_TOKEN if other_order is not None:
            return other_order.notify_url
        case Address.WRONG_TOKEN | Address.OTHER_TOKEN:
            token = urlsplit(own).path.rpartition("/")[2]
            return _with_last_segment(own, _spoiled(token))


def _with_last_segment(url: str, segment: str | None) -> str:
    parts = urlsplit(url)
    head = parts.path.rpartition("/")[0]
    return urlunsplit(parts._replace(path=head if segment is None else f"{head}/{segment}"))


def _spoiled(token: str) -> str:
    # Changes eight characters before the last one, because the last character of base64 may hold unused bits.
    end = max(1, len(token) - 1)
    start = max(0, end - 8)
    changed = "".join("B" if character == "A" else "A" for character in token[start:end])
    return token[:start] + changed + token[end:]
