"""Digests are stored: a statement must have the same digest in every release."""

from datetime import timedelta, timezone
from typing import Any

import pytest

from service.gateway.messages import OrderStatement
from service.gateway.order_claims import STATUSES, digest_statement

SHANGHAI = timezone(timedelta(hours=8))
SAID = {
    "biz_order_no": "DK1",
    "pay_order_no": "P1",
    "order_type": "single_withhold",
    "pay_type": "baofoo_001",
    "pay_status": "success",
    "pay_time": "2019-07-01 12:00:05",
}
READ = "2b3bd29bc38674e4a191e926e80fdcd3e746ab995dc7e3e50767f4186ab0a139"
WITHOUT_A_TIME = "2719f18901cd46a4eba3f9a6ff3074dca77e1048a6dd0d7c80529ae26d39f106"
#: By the code of that release: hashed with their time where it could read it, else as if there were none.
TIMES = [
    ("2019-07-01 12:00:05", READ),
    ("2019-07-01T12:00:05", READ),
    ("20190701120005", READ),
    ("1561953605", READ),
    ("2019/7/1 9:00:05", "c92b8001b93dd15ec8ba2a3ee4d2b99fcaafe555a2584ba829af9da6c958c7b7"),
    ("", WITHOUT_A_TIME),
    ("2019-07-01 12:00:05.123", WITHOUT_A_TIME),
    ("2019-07-01T04:00:05Z", WITHOUT_A_TIME),
    ("2019-07-01T12:00:05+08:00", WITHOUT_A_TIME),
    ("2019-7-1 9:5:5", WITHOUT_A_TIME),
    ("1561953605123", WITHOUT_A_TIME),
    ("9999999999", WITHOUT_A_TIME),
]
STATUS_DIGESTS = [
    ("fail", "95b077faa89f78209e0278c29b8f710e0a05955ebc8180f1e3f676ebe0a710b8"),
    ("pending", "496b232c8484883390df45b7b0b87650e1ea989d3d37b6d11b53c3fec791ba1f"),
    ("wait_pay", "496b232c8484883390df45b7b0b87650e1ea989d3d37b6d11b53c3fec791ba1f"),
    ("refunded", "d5df3889dda0954bafd1dd1656f5c226b3979194e0007d6839cd125d950076f5"),
]
#: Of SAID with this amount.
AMOUNTS = [
    ("100.00", "68a98b510734b7fbb86e8df1780f1fdd07a1ba682fbea97a0e5296727f6593fb"),
    ("100.0", "f8c290235ca6677eb62770459ae1944436caaeb25b44e97531d697c7e68a6e00"),
    ("0.01", "f930dd874a15402636a870c277082aa69fd395d9a85735a2932fcb2925a736b2"),
    ("10000", "a7dbdcbbc83510335a0a1771e24a2fd2955ea529c00751a1a1a7a8dae6520a3d"),
    ("about 100", "2fdb1d6c36c984d011bd4ea31cdf5f492541e9da56d4ffb0f5adc8bd682ea54c"),
]


def digest(*, amount: str = "", **said: Any) -> Any:
    statement = OrderStatement(**{**SAID, **said})
    return digest_statement(statement, status=STATUSES.get(statement.pay_status), time_zone=SHANGHAI, amount=amount)


@pytest.mark.parametrize(("pay_time", "expected"), TIMES)
def test_a_time_is_hashed_as_the_first_release_read_it(pay_time: Any, expected: Any) -> None:
    assert digest(pay_time=pay_time) == expected


@pytest.mark.parametrize(("pay_status", "expected"), STATUS_DIGESTS)
def test_a_time_counts_of_successes_only(pay_status: Any, expected: Any) -> None:
    assert digest(pay_status=pay_status) == digest(pay_status=pay_status, pay_time="") == expected


def test_what_was_left_out_and_what_is_unknown_do_not_count() -> None:
    assert digest(missing_fields=("pay_type",), unknown_fields={"shop": "7"}) == READ


@pytest.mark.parametrize(("amount", "expected"), AMOUNTS)
def test_an_amount_is_hashed_as_it_was_sent_whether_or_not_it_can_be_read(amount: str, expected: str) -> None:
    assert digest(amount=amount) == expected


def test_a_claim_without_an_amount_keeps_its_digest() -> None:
    assert digest(amount="") == READ
