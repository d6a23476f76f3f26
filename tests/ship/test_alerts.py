"""Each alert fires when its trouble is there and is quiet when it is not, as Prometheus itself reckons."""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
RULES = REPOSITORY / "helm" / "payment-callbacks" / "files" / "alerts.yaml"
PAGES = REPOSITORY / "docs" / "alerts.md"

Series = dict[str, str]

_ROLES = {
    role: f'payment_callbacks_build_info{{role="{role}"}}'
    for role in ("receiver", "ledger", "inquirer", "dispatcher", "api", "console")
}
_ALL_ROLES: Series = dict.fromkeys(_ROLES.values(), "1x1000")


class Case(NamedTuple):
    """A trouble and its likeness: what Prometheus has read, minute by minute, in `promtool`'s notation."""

    alert: str
    trouble: Series
    #: What looks like it, and is none.
    health: Series
    labels: Mapping[str, str] = MappingProxyType({})
    at: str = "40m"
    every: str = "1m"


def _received(outcome: str, **labels: str) -> str:
    given = {"merchant": "acme", "outcome": outcome, "reason": "", "trust": "", **labels}
    return _named("payment_callbacks_received_total", given)


def _waiting(kind: str, **labels: str) -> str:
    given = {"kind": kind, "merchant": "", "endpoint": "", "acknowledged": "false", **labels}
    return _named("payment_callbacks_attention_items", given)


def _named(metric: str, labels: Mapping[str, str]) -> str:
    return metric + "{" + ", ".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def _buckets(name: str, *, under: str, over: str, **labels: str) -> Series:
    """A histogram in which the bucket `under` grows by nothing, and that up to `over` by one each second."""
    more = "".join(f', {label}="{value}"' for label, value in labels.items())
    return {
        f'{name}_bucket{{le="{under}"{more}}}': "0x1000",
        f'{name}_bucket{{le="{over}"{more}}}': "0+60x1000",
        f'{name}_bucket{{le="+Inf"{more}}}': "0+60x1000",
    }


def _final_statuses(*, orders: str = "0+100x1000", in_time: str) -> Series:
    """Final statuses of "acme", and those of them that came within five minutes."""
    return {
        'payment_callbacks_final_status_seconds_count{merchant="acme"}': orders,
        'payment_callbacks_final_status_seconds_bucket{merchant="acme", le="300.0"}': in_time,
    }


def _day_old(*, explained: str, unexplained: str) -> Series:
    """Orders of "acme" that are a day old, as each of two processes counts them."""
    return {
        f'payment_callbacks_day_old_orders{{instance="{instance}", merchant="acme", explained="{label}"}}': values
        for instance in ("a", "b")
        for label, values in (("true", explained), ("false", unexplained))
    }


CASES = [
    *(
        Case("PaymentCallbacksRoleAbsent", {**_ALL_ROLES, series: "_x1000"}, _ALL_ROLES, {"role": role})
        for role, series in _ROLES.items()
    ),
    Case(
        "PaymentCallbacksUnconfirmed",
        {_received("unconfirmed", reason="BrokerUnavailable"): "0+1x1000"},
        {_received("unconfirmed", reason="BrokerUnavailable"): "7x1000", _received("acknowledged"): "0+9x1000"},
        {"merchant": "acme", "reason": "BrokerUnavailable"},
    ),
    Case(
        "PaymentCallbacksConfirmSlow",
        _buckets("payment_callbacks_confirm_seconds", under="1.0", over="2.0"),
        _buckets("payment_callbacks_confirm_seconds", under="0.01", over="0.025"),
    ),
    Case(
        "PaymentCallbacksSpoolHoldsCallbacks",
        {'payment_callbacks_spool_oldest_timestamp_seconds{instance="a"}': "60x1000"},
        {'payment_callbacks_spool_oldest_timestamp_seconds{instance="a"}': "0x1000"},
        {"instance": "a"},
    ),
    *(
        Case(
            alert,
            {_waiting(kind): "1x1000"},
            {_waiting(kind, acknowledged="true"): "1x1000", _waiting(kind): "0x30 1x2 0x1000"},
        )
        for alert, kind in (
            ("PaymentCallbacksCallbacksWait", "waiting-callbacks"),
            ("PaymentCallbacksReporterSilent", "silent-reporter"),
        )
    ),
    Case(
        "PaymentCallbacksLedgerStuck",
        {
            'payment_callbacks_queue_messages{queue="ledger"}': "12x1000",
            "payment_callbacks_ledger_batch_claims_sum": "90x1000",
        },
        {
            'payment_callbacks_queue_messages{queue="ledger"}': "12x1000",
            "payment_callbacks_ledger_batch_claims_sum": "90+1x1000",
        },
    ),
    Case(
        "PaymentCallbacksLedgerBehind",
        _buckets("payment_callbacks_ledger_wait_seconds", under="60.0", over="300.0"),
        _buckets("payment_callbacks_ledger_wait_seconds", under="0.1", over="0.25"),
    ),
    Case(
        "PaymentCallbacksInquiriesLate",
        {'payment_callbacks_inquiries_oldest_due_seconds{merchant="acme", kind="owed"}': "0+60x1000"},
        {
            'payment_callbacks_inquiries_oldest_due_seconds{merchant="acme", kind="owed"}': "20x1000",
            # A flood of forgeries, which is asked about at half of the rate.
            'payment_callbacks_inquiries_oldest_due_seconds{merchant="acme", kind="doubt"}': "0+60x1000",
        },
        {"merchant": "acme", "kind": "owed"},
    ),
    Case(
        "PaymentCallbacksInquiriesLate",
        {'payment_callbacks_inquiries_oldest_due_seconds{merchant="acme", kind="doubt"}': "0+300x1000"},
        {'payment_callbacks_inquiries_oldest_due_seconds{merchant="acme", kind="doubt"}': "1200x1000"},
        {"merchant": "acme", "kind": "doubt"},
    ),
    Case(
        "PaymentCallbacksGatewaySilent",
        {
            'payment_callbacks_inquiries_asked_total{merchant="acme", outcome="no-answer"}': "0+6x1000",
            'payment_callbacks_inquiries_asked_total{merchant="acme", outcome="answered"}': "0+4x1000",
        },
        {
            'payment_callbacks_inquiries_asked_total{merchant="acme", outcome="no-answer"}': "0+1x1000",
            'payment_callbacks_inquiries_asked_total{merchant="acme", outcome="answered"}': "0+4x1000",
        },
        {"merchant": "acme"},
    ),
    Case(
        "PaymentCallbacksGatewayUnusable",
        {'payment_callbacks_gateway_unusable{merchant="acme"}': "1x1000"},
        {'payment_callbacks_gateway_unusable{merchant="acme"}': "0x1000"},
        {"merchant": "acme"},
    ),
    Case(
        "PaymentCallbacksMerchantSilent",
        {
            'payment_callbacks_last_claim_timestamp_seconds{merchant="acme", source="callback"}': "600x1200",
            # Forged callbacks go on and hide nothing.
            _received("acknowledged", trust="checksum"): "0+10x1200",
        },
        {
            'payment_callbacks_last_claim_timestamp_seconds{merchant="acme", source="callback"}': "0+600x1200",
            _received("acknowledged", trust="capability"): "0+10x1200",
        },
        {"merchant": "acme"},
        at="11000m",
        every="10m",
    ),
    Case(
        "PaymentCallbacksMerchantSilent",
        {
            # Never heard of since the first day, while answers end orders.
            'payment_callbacks_last_claim_timestamp_seconds{merchant="acme", source="callback"}': "0x1000",
            'payment_callbacks_transitions_total{merchant="acme", source="query", status="succeeded"}': "0+1x1000",
        },
        {
            'payment_callbacks_last_claim_timestamp_seconds{merchant="acme", source="callback"}': "0x1000",
            'payment_callbacks_transitions_total{merchant="acme", source="query", status="succeeded"}': "7x1000",
        },
        {"merchant": "acme"},
        at="90m",
    ),
    Case(
        "PaymentCallbacksUndelivered",
        {'payment_callbacks_undelivered_oldest_seconds{endpoint="shop"}': "0+60x1000"},
        {'payment_callbacks_undelivered_oldest_seconds{endpoint="shop"}': "2x1000"},
        {"endpoint": "shop"},
    ),
    Case(
        "PaymentCallbacksEndpointPaused",
        {_waiting("paused-endpoint", endpoint="shop"): "1x1000"},
        {_waiting("paused-endpoint", endpoint="shop", acknowledged="true"): "1x1000"},
        {"endpoint": "shop"},
    ),
    Case(
        "PaymentCallbacksLagHigh",
        _buckets("payment_callbacks_lag_seconds", under="60.0", over="300.0", endpoint="shop"),
        _buckets("payment_callbacks_lag_seconds", under="0.1", over="0.25", endpoint="shop"),
        {"endpoint": "shop"},
    ),
    Case(
        "PaymentCallbacksUnwatched",
        {'payment_callbacks_samples_failed_total{sample="queues"}': "0+4x1000"},
        {'payment_callbacks_samples_failed_total{sample="queues"}': "3x1000"},
        {"sample": "queues"},
    ),
    Case(
        "PaymentCallbacksLogLost",
        {'payment_callbacks_log_lines_lost_total{reason="unwritable"}': "0+9x1000"},
        # A line was lost long ago; and what a stranger sends can have its characters escaped, and loses no line.
        {
            'payment_callbacks_log_lines_lost_total{reason="unwritable"}': "1x1000",
            "payment_callbacks_log_lines_escaped_total": "0+9x1000",
        },
        {"reason": "unwritable"},
    ),
    Case(
        "PaymentCallbacksDeadLetters",
        {_waiting("dead-letter"): "1x1000"},
        {_waiting("dead-letter", acknowledged="true"): "1x1000"},
    ),
    *(
        Case(
            "PaymentCallbacksEventsParked",
            {_waiting(kind, endpoint="shop"): "1x1000", _waiting(other, endpoint="shop"): "0x1000"},
            {_waiting(kind, endpoint="shop", acknowledged="true"): "1x1000"},
            {"endpoint": "shop"},
        )
        for kind, other in (("parked-delivery", "parked-deliveries"), ("parked-deliveries", "parked-delivery"))
    ),
    Case(
        "PaymentCallbacksInquiriesParked",
        {_waiting("parked-inquiry", merchant="acme"): "1x1000"},
        {_waiting("parked-inquiry", merchant="acme", acknowledged="true"): "1x1000"},
        {"merchant": "acme"},
    ),
    Case(
        "PaymentCallbacksWithholdsUnknown",
        {_waiting("unknown-withhold", merchant="acme"): "1x1000"},
        {_waiting("unknown-withhold", merchant="acme", acknowledged="true"): "1x1000"},
        {"merchant": "acme"},
    ),
    Case(
        "PaymentCallbacksWithholdsContradicted",
        {_waiting("contradicted-withhold", merchant="acme"): "1x1000"},
        {_waiting("contradicted-withhold", merchant="acme", acknowledged="true"): "1x1000"},
        {"merchant": "acme"},
    ),
    Case(
        "PaymentCallbacksProposalsOpen",
        {_waiting("proposal", merchant="acme"): "1x1000"},
        {_waiting("proposal", merchant="acme", acknowledged="true"): "1x1000"},
        {"merchant": "acme"},
        at="70m",
    ),
    Case(
        "PaymentCallbacksEventsUnrouted",
        {'payment_callbacks_queue_messages{queue="unrouted"}': "1x1000"},
        {'payment_callbacks_queue_messages{queue="unrouted"}': "0x1000"},
    ),
    *(
        Case(
            "PaymentCallbacksConflictsOpen",
            {_waiting(kind, merchant="acme"): "1x1000", _waiting(other, merchant="acme"): "0x1000"},
            {_waiting(kind, merchant="acme", acknowledged="true"): "1x1000"},
            {"merchant": "acme"},
        )
        for kind, other in (("conflict", "disputed-field"), ("disputed-field", "conflict"))
    ),
    Case(
        "PaymentCallbacksFieldDisputed",
        {'payment_callbacks_disputed_orders_ratio{merchant="acme", field="pay_type"}': "0.02x1000"},
        {'payment_callbacks_disputed_orders_ratio{merchant="acme", field="pay_type"}': "0.005x1000"},
        {"merchant": "acme", "field": "pay_type"},
    ),
    Case(
        "PaymentCallbacksRuleCorrected",
        {'payment_callbacks_refusal_rules_suspended{merchant="acme", reason="correction"}': "1x1000"},
        {'payment_callbacks_refusal_rules_suspended{merchant="acme", reason="max-per-hour"}': "1x1000"},
        {"merchant": "acme"},
    ),
    *(
        Case(
            "PaymentCallbacksRulesSuspended",
            {f'payment_callbacks_refusal_rules_suspended{{merchant="acme", reason="{reason}"}}': "1x1000"},
            {f'payment_callbacks_refusal_rules_suspended{{merchant="acme", reason="{reason}"}}': "0x1000"},
            {"merchant": "acme", "reason": reason},
        )
        for reason in ("missing-order", "max-per-hour")
    ),
    Case(
        "PaymentCallbacksQuarantined",
        {_waiting("quarantined-claim", merchant="acme"): "1x1000"},
        {_waiting("quarantined-claim", merchant="acme", acknowledged="true"): "1x1000"},
        {"merchant": "acme"},
    ),
    Case(
        "PaymentCallbacksUntrusted",
        {
            _received("acknowledged", trust="checksum"): "0+9x1000",
            _received("acknowledged", trust="capability"): "0+1x1000",
        },
        {
            _received("acknowledged", trust="checksum"): "0+1x1000",
            _received("acknowledged", trust="capability"): "0+9x1000",
        },
        {"merchant": "acme"},
    ),
    Case(
        "PaymentCallbacksRefused",
        {_received("refused", reason="bad-sign"): "0+1x1000"},
        {_received("refused", merchant="unknown", reason="unknown-merchant"): "0+99x1000"},
        {"merchant": "acme", "reason": "bad-sign"},
    ),
    Case(
        "PaymentCallbacksFailing",
        {_received("failed", reason="KeyError"): "0+1x1000"},
        {_received("acknowledged"): "0+9x1000"},
        {"merchant": "acme", "reason": "KeyError"},
    ),
    Case(
        "PaymentCallbacksRequestsCut",
        {'payment_callbacks_requests_cut_total{reason="too-slow"}': "0+90x1000"},
        {'payment_callbacks_requests_cut_total{reason="too-slow"}': "0+1x1000"},
        {"reason": "too-slow"},
    ),
    *(
        Case(
            "PaymentCallbacksFinalStatusesLate",
            trouble,
            health,
            {"merchant": "acme", "slo": "final-status"},
            at="100m",
        )
        for trouble, health in (
            # For hours, 20 % and 7 % are late, which is too many in one hour and in six; 5 % are not.
            (_final_statuses(in_time="0+80x1000"), _final_statuses(in_time="0+95x1000")),
            # All were late in the first hour, and none is now.
            (_final_statuses(in_time="0+93x1000"), _final_statuses(in_time="0x60 0+100x1000")),
            # All six orders of an hour are late.
            (_final_statuses(in_time="0x1000"), _final_statuses(orders="0+0.1x1000", in_time="0x1000")),
        )
    ),
    *(
        Case(
            "PaymentCallbacksFinalStatusesOftenLate",
            trouble,
            health,
            {"merchant": "acme", "slo": "final-status"},
            at="600m",
        )
        for trouble, health in (
            # For hours, 4 % and 2 % are late, which is too many in a day and in three; 0.5 % are not.
            (_final_statuses(in_time="0+96x1000"), _final_statuses(in_time="0+99.5x1000")),
            # 4 % were late in the first three hours.
            (_final_statuses(in_time="0+98x1000"), _final_statuses(in_time="0+96x180 17376+100x1000")),
        )
    ),
    Case(
        "PaymentCallbacksOrdersUnexplained",
        _day_old(explained="99x1000", unexplained="1x1000"),
        _day_old(explained="1999x1000", unexplained="1x1000"),
        {"merchant": "acme", "slo": "explained"},
        at="100m",
    ),
    Case(
        "PaymentCallbacksOrdersUnexplained",
        _day_old(explained="998x1000", unexplained="2x1000"),
        # There are no orders at all.
        _day_old(explained="0x1000", unexplained="0x1000"),
        {"merchant": "acme", "slo": "explained"},
        at="100m",
    ),
]


#: Of the alert that tells of undelivered events: it leaves paused endpoints to the other, and no others.
_UNDELIVERED = next(case for case in CASES if case.alert == "PaymentCallbacksUndelivered")
_PAUSED = 'payment_callbacks_endpoint_paused_seconds{endpoint="%s"}'


def _rules() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def _promtool(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    program = shutil.which("promtool")
    assert program, "promtool is not installed. On Debian and Ubuntu: apt-get install prometheus"
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=60)


def _firing(case: Case, series: Series, folder: Path, *, expected: bool) -> "subprocess.CompletedProcess[str]":
    """What promtool says of the expectation that the alert fires, or does not."""
    # Only the labels are compared: what a summary says is for people.
    probe = f'ALERTS{{alertname="{case.alert}", alertstate="firing"}}'
    sample = {"labels": _sample_of(case), "value": 1}
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": case.every,
        "tests": [
            {
                "interval": case.every,
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {"expr": probe, "eval_time": case.at, "exp_samples": [sample] if expected else []}
                ],
            }
        ],
    }
    file = folder / "test.yaml"
    file.write_text(json.dumps(test))
    return _promtool("test", "rules", file)


def _sample_of(case: Case) -> str:
    severity = _rules()[case.alert]["labels"]["severity"]
    labels = {"alertname": case.alert, "alertstate": "firing", "severity": severity, **case.labels}
    return _named("ALERTS", labels)


def test_prometheus_takes_the_rules() -> None:
    done = _promtool("check", "rules", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_its_cases() -> None:
    assert list(dict.fromkeys(case.alert for case in CASES)) == list(_rules())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_fires_when_its_trouble_lasts(case: Case, tmp_path: Path) -> None:
    done = _firing(case, case.trouble, tmp_path, expected=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_is_quiet_about_what_only_looks_like_its_trouble(case: Case, tmp_path: Path) -> None:
    done = _firing(case, case.health, tmp_path, expected=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_undelivered_events_of_a_paused_endpoint_are_no_alert(tmp_path: Path) -> None:
    done = _firing(_UNDELIVERED, {**_UNDELIVERED.trouble, _PAUSED % "shop": "0+60x1000"}, tmp_path, expected=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("series", [{_PAUSED % "shop": "0x1000"}, {_PAUSED % "books": "0+60x1000"}])
def test_undelivered_events_of_an_endpoint_that_is_not_paused_are_an_alert(series: Series, tmp_path: Path) -> None:
    done = _firing(_UNDELIVERED, {**_UNDELIVERED.trouble, **series}, tmp_path, expected=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_not_delivered_after_a_pause_is_an_alert_again(tmp_path: Path) -> None:
    series = {**_UNDELIVERED.trouble, _PAUSED % "shop": "60+60x20 0x1000"}
    done = _firing(_UNDELIVERED, series, tmp_path, expected=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_page_that_says_what_it_means_and_what_to_do() -> None:
    pages = re.split(r"^### ", PAGES.read_text(), flags=re.MULTILINE)[1:]
    titles = [page.partition("\n")[0] for page in pages]
    assert titles == list(_rules())
    for page in pages:
        for part in ("**It means**: ", "**Look at**: ", "**Do**: "):
            assert part in page, f"{page.partition(chr(10))[0]} lacks {part}"


def test_every_alert_names_its_page() -> None:
    for name, rule in _rules().items():
        assert rule["annotations"]["runbook"] == f"docs/alerts.md#{name.lower()}"
