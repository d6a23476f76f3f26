"""The gateway's own spelling of an order's status."""

from enum import StrEnum


class PayStatus(StrEnum):
    """`pay_status` as the gateway's document has it (3. 单笔代扣接口, 3. 单笔代扣结果查询接口, 5. 异步回调)."""

    INITIAL = "initial"
    PENDING = "pending"
    #: In a query's answer only.
    WAIT_PAY = "wait_pay"
    SUCCESS = "success"
    FAIL = "fail"

    @property
    def opposite(self) -> "PayStatus":
        """The terminal status that a liar would claim instead."""
        return PayStatus.FAIL if self is PayStatus.SUCCESS else PayStatus.SUCCESS
