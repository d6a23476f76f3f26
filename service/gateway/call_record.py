"""One call to the gateway as the log has it."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import structlog

from service.gateway.envelopes import new_request_id
from service.gateway.errors import CallFailed, NotSent, Refused
from service.gateway.messages import RequestMethod

_log = structlog.get_logger(__name__)


class CallRecord:
    """Logs, at the end of its `with`, which method was called about which order, how long it took and how it ended.

    Never what was sent or answered. A `CallFailed` that passes through learns the requestId.
    """

    def __init__(self, method: RequestMethod, biz_order_no: str = "") -> None:
        self.method = method
        self.request_id = new_request_id()
        #: What the log says where nothing was raised.
        self.outcome = "answered" if method is RequestMethod.SINGLE_ORDER_QUERY else "accepted"
        self._biz_order_no = biz_order_no
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, CallFailed):
            error.request_id = self.request_id
        _log.info(
            "gateway.called",
            method=self.method.value,
            biz_order_no=self._biz_order_no,
            request_id=self.request_id,
            seconds=round(time.monotonic() - self._started, 3),
            outcome=self.outcome if error is None else _OUTCOMES.get(type(error), "unknown"),
        )


_OUTCOMES: Mapping[type[BaseException], str] = {NotSent: "not-sent", Refused: "refused"}
