"""The day's report, of real processes, on both foundations."""

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from tests.support.deployment import Deployment
from tests.support.waiting import eventually

_SHANGHAI = ZoneInfo("Asia/Shanghai")
_OF_NO_MERCHANT = ""


def _reports_since(deployment: Deployment, began: datetime, zone: tzinfo) -> list[dict[str, Any]]:
    """Today's; where midnight has just passed, yesterday's as well."""
    days = {moment.astimezone(zone).date() for moment in (began, datetime.now(UTC))}
    return [_report_of(deployment, day) for day in sorted(days)]


def _report_of(deployment: Deployment, day: date) -> dict[str, Any]:
    done = deployment.command("report", "--day", day.isoformat(), "--format", "json")
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if report["explained"] else 3), done.stderr
    return report


def _refused(deployment: Deployment, began: datetime) -> Counter[tuple[str, str]]:
    """Refused callbacks by merchant and reason."""
    counted: Counter[tuple[str, str]] = Counter()
    for report in _reports_since(deployment, began, _SHANGHAI):
        for row in report["days"]:
            assert row["refused"] == sum(row["refused_by_reason"].values())
            counted.update({(row["merchant"], reason): n for reason, n in row["refused_by_reason"].items()})
    for report in _reports_since(deployment, began, UTC):
        counted[_OF_NO_MERCHANT, "unknown-merchant"] += report["refused_for_no_merchant"]
    return counted


def test_refused_callbacks_are_in_their_days_report_by_merchant_and_reason_and_an_empty_day_has_zeros(
    own_deployment: Deployment,
) -> None:
    began = datetime.now(UTC)
    sender, minted = own_deployment.sender, own_deployment.callback
    bad = [
        *(minted(f"DK{n}", sent_by=lambda _: "{") for n in range(20)),
        *(minted(f"DK{n}", changes={"biz_order_no": f"other {n}"}) for n in range(3)),
        *(replace(minted(f"DK{n}", merchant="other"), token="") for n in range(5)),
        *(replace(minted(f"DK{n}"), merchant=f"nobody-{n}") for n in range(4)),
    ]
    assert {answer.status for answer in sender.send_all(bad)} == {400}
    assert sender.send(minted("DK1")).acknowledged
    # Each worker tells by itself every few seconds, and what is left when it ends.
    assert own_deployment.role("receiver").terminate() == 0
    expected = {
        ("acme", "not-json"): 20,
        ("acme", "token-of-another-order"): 3,
        ("other", "missing-token"): 5,
        (_OF_NO_MERCHANT, "unknown-merchant"): 4,
    }
    eventually(lambda: own_deployment.ledger.count_refused() == sum(expected.values()))
    assert _refused(own_deployment, began) == expected
    empty = _report_of(own_deployment, began.date() - timedelta(days=3))
    assert {row["merchant"] for row in empty["days"]} == {"acme", "ask", "open", "other"}
    assert {row["orders"] for row in empty["days"]} == {0}
    assert empty["refused_for_no_merchant"] == 0
