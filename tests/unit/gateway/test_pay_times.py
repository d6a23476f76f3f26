from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.gateway import order_claims
from service.gateway.order_claims import read_pay_time

SHANGHAI = ZoneInfo("Asia/Shanghai")
TIME = datetime(2019, 7, 1, 4, 0, 5, tzinfo=UTC)
MILLIS = TIME.replace(microsecond=123000)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2019-07-01 12:00:05", TIME),
        ("2019-07-01T12:00:05", TIME),
        ("2019/07/01 12:00:05", TIME),
        ("2019.07.01 12:00:05", TIME),
        ("2019-7-1 12:0:5", TIME),
        (" 2019-07-01 12:00:05\n", TIME),
        ("2019-07-01 12:00", TIME.replace(second=0)),
        ("2019年07月01日 12:00:05", TIME),
        ("2019年7月1日12时00分05秒", TIME),
        ("20190701120005", TIME),
        ("20190701 120005", TIME),
        ("20190701T120005Z", TIME + timedelta(hours=8)),
        ("20190701 12:00:05", TIME),
        ("190701120005", TIME),
        ("201907011200", TIME.replace(second=0)),
        ("1561953605", TIME),
        ("1561953605123", MILLIS),
        ("1561953605.123", MILLIS),
        ("1561953605.0", TIME),
        ("1561953605123.0", MILLIS),
        ("1561953605123.000999", MILLIS),
        ("1.561953605E9", TIME),
        ("1.561953605123E12", MILLIS),
        ("1561953605123000", MILLIS),
        ("1561953605123000999", MILLIS),
        ("20190701120005123", MILLIS),
        ("20190701120005.123", MILLIS),
        ("2019-07-01 12:00:05.123", MILLIS),
        ("2019-07-01 12:00:05,123", MILLIS),
        ("2019-07-01 12:00:05:123", MILLIS),
        ("2019-07-01 12:00:05.1", TIME.replace(microsecond=100000)),
        ("2019-07-01 12:00:05.123000999", MILLIS),
        ("2019-07-01T04:00:05Z", TIME),
        ("2019-07-01t04:00:05z", TIME),
        ("2019-07-01 04:00:05 UTC", TIME),
        ("2019-07-01T04:00:05.123Z", MILLIS),
        ("2019-07-01T12:00:05+08:00", TIME),
        ("2019-07-01T12:00:05+0800", TIME),
        ("2019-07-01T12:00:05+08", TIME),
        ("2019-07-01 12:00:05 +0800", TIME),
        ("2019-07-01 12:00:05 GMT+8", TIME),
        ("2019-06-30T22:30:05-05:30", TIME),
        ("2019-07-01T12:00:05.123+08:00[Asia/Shanghai]", MILLIS),
    ],
)
def test_every_format_that_gateways_are_known_to_write_is_read(text: str, time: Any) -> None:
    assert read_pay_time(text, SHANGHAI) == time


@pytest.mark.parametrize(
    "text",
    [
        "201011121314",  # 20:10-11-12 ... or 2010-11-12 13:14
        "19-07-01 12:00:05",
        "01/07/2019 12:00:05",
        "2019-07-01",
        "12:00:05",
        "2019-07-01 12:00:05 CST",
        "2019-07-01 12:00:05 PM",
        "2019-07-0112:00:05",
        "2019-07/01 12:00:05",
        "2019-02-30 12:00:00",
        "2019-07-01 24:00:00",
        "2019-07-01 12:00:05+24:00",
        "2019-07-01 12:00:05+08:60",
        "0000-00-00 00:00:00",
        "0019-07-01 12:00:05",
        "1999-12-31 23:59:59",
        "2100-01-01 00:00:00",
        "156195360512",
        "15619536051234",
        "99999999999",
        "9999999999999",
        "-1561953605",
        "2019-07-01 12:00:05.",
        "2019-07-01 12:00:05:12",
        "1.561953605123E99",
        "1.561953605123E3",
        "2019-07-01 12:00:05.1234567890",
        "２０１９-07-01 12:00:05",
        "1" * 5000,
        "",
    ],
)
def test_what_is_no_time_or_could_be_two_is_none(text: Any) -> None:
    assert read_pay_time(text, SHANGHAI) is None


@pytest.mark.parametrize("text", ["2019-07-01 12:00:05", "1561953605123", "2019-07-01T04:00:05Z", "20190701120005"])
def test_a_time_comes_in_the_merchants_zone_whatever_zone_it_was_written_in(text: str) -> None:
    time = read_pay_time(text, SHANGHAI)
    assert time is not None
    assert time.utcoffset() == timedelta(hours=8)


@given(
    st.from_regex(r"(20|19|21)[0-9]{2}([-/])[0-9]{1,2}\2[0-9]{1,2}[ T][0-9]{1,2}:[0-5][0-9]:[0-5][0-9]", fullmatch=True)
    | st.from_regex(r"20[0-9]{2}[01][0-9][0-3][0-9][0-2][0-9][0-5][0-9][0-5][0-9]", fullmatch=True)
    | st.from_regex(r"[0-4][0-9]{9}", fullmatch=True),
    st.sampled_from([SHANGHAI, ZoneInfo("America/New_York"), timezone(timedelta(hours=-3))]),
)
def test_whatever_digests_read_is_read_alike(text: Any, zone: Any) -> None:
    hashed = order_claims._read_digested_time(text, zone)
    if hashed is not None:
        assert read_pay_time(text, zone) == hashed


@given(st.text() | st.text(alphabet="0123456789-/.:, TZ+年月日时分秒"))
def test_no_text_raises_anything(text: Any) -> None:
    read_pay_time(text, SHANGHAI)
