"""What people read of an alert in their chat: Alertmanager takes the example, and renders its texts."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

_REPOSITORY = Path(__file__).parents[2]
_EXAMPLE = _REPOSITORY / "docs" / "examples" / "notices"
_RULES = _REPOSITORY / "helm" / "payment-callbacks" / "files" / "alerts.yaml"
_TEMPLATE = _EXAMPLE / "payment-callbacks.tmpl"

# As Alertmanager gives it to its templates, and posts it to webhooks.
_FIRING = {
    "status": "firing",
    "labels": {"alertname": "PaymentCallbacksGatewaySilent", "merchant": "acme", "severity": "warning"},
    "annotations": {
        "summary": "The gateway of acme leaves 80% of our queries unanswered.",
        "runbook": "docs/alerts.md#paymentcallbacksgatewaysilent",
    },
    "startsAt": "2026-01-05T12:00:00Z",
    "endsAt": "0001-01-01T00:00:00Z",
    "generatorURL": "http://prometheus.example/graph",
    "fingerprint": "7a3f1c2d4b5e6f70",
}
_RESOLVED = {
    "status": "resolved",
    "labels": {"alertname": "PaymentCallbacksUndelivered", "endpoint": "shop", "severity": "critical"},
    "annotations": {
        "summary": "A test.",
        "runbook": "docs/alerts.md#paymentcallbacksundelivered",
    },
    "startsAt": "2026-01-05T12:00:00Z",
    "endsAt": "2026-01-05T12:30:00Z",
    "generatorURL": "http://prometheus.example/graph",
    "fingerprint": "8b3f1c2d4b5e6f71",
}


def _amtool(*arguments: str | Path) -> str:
    program = shutil.which("amtool")
    assert program, "amtool is not installed. On Debian and Ubuntu: apt-get install prometheus-alertmanager"
    environment = {**os.environ, "TZ": "Asia/Shanghai"}
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False, timeout=60, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _render(folder: Path, name: str, *alerts: dict[str, Any]) -> str:
    names = {alert["labels"]["alertname"] for alert in alerts}
    data = {
        "receiver": "payments",
        "status": "firing",
        "alerts": alerts,
        "groupLabels": {},
        "commonLabels": {"alertname": names.pop()} if len(names) == 1 else {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager.example",
    }
    file = folder / "data.json"
    file.write_text(json.dumps(data))
    text = f'{{{{ template "{name}" . }}}}'
    arguments = (f"--template.glob={_TEMPLATE}", f"--template.text={text}", f"--template.data={file}")
    return _amtool("template", "render", *arguments)


def _notifier(channel: str, number: int = 0) -> dict[str, Any]:
    receivers = yaml.safe_load((_EXAMPLE / "alertmanager.yml").read_text())["receivers"]
    (payments,) = [receiver for receiver in receivers if receiver["name"] == "payments"]
    found: dict[str, Any] = payments[f"{channel}_configs"][number]
    return found


def test_alertmanager_takes_the_example() -> None:
    said = _amtool("check-config", _EXAMPLE / "alertmanager.yml")
    assert "1 templates" in said
    assert "SUCCESS" in said


def test_every_alert_reaches_the_payments_team_and_nothing_else_does() -> None:
    for rule in _alerts():
        labels = (f"alertname={rule['alert']}", f"severity={rule['labels']['severity']}")
        assert _route(*labels) == "payments"
    assert _route("alertname=NodeDown", "severity=critical") == "nobody"


def test_a_firing_alert_says_in_chinese_what_of_whom_since_when_and_what_to_do(tmp_path: Path) -> None:
    assert _render(tmp_path, "payment_callbacks.title", _FIRING).strip() == "【支付回调】告警 1 条：网关不应答查询"
    assert _render(tmp_path, "payment_callbacks.text", _FIRING).strip().splitlines() == [
        "告警：网关不应答查询（警告）",
        "- 说明：The gateway of acme leaves 80% of our queries unanswered.",
        "- 商户：acme",
        "- 开始：2026-01-05 20:00:00 +08:00",
        "- 处理：https://git.example.com/payment-callbacks/docs/alerts.md#paymentcallbacksgatewaysilent",
    ]


def test_a_resolved_alert_says_when_it_ended_and_several_are_counted(tmp_path: Path) -> None:
    assert (
        _render(tmp_path, "payment_callbacks.title", _FIRING, _RESOLVED).strip() == "【支付回调】告警 1 条，恢复 1 条"
    )
    assert _render(tmp_path, "payment_callbacks.text", _FIRING, _RESOLVED).strip().splitlines()[-5:] == [
        "- 说明：A test.",
        "- 下游：shop",
        "- 开始：2026-01-05 20:00:00 +08:00",
        "- 恢复：2026-01-05 20:30:00 +08:00",
        "- 处理：https://git.example.com/payment-callbacks/docs/alerts.md#paymentcallbacksundelivered",
    ]


def test_every_channel_shows_the_title_and_the_text(tmp_path: Path) -> None:
    title, text = (_render(tmp_path, f"payment_callbacks.{part}", _FIRING).strip() for part in ("title", "text"))
    # What the webhook's bridge looks for.
    for name in ("prom.text", "prom.markdown"):
        shown = _render(tmp_path, name, _FIRING)
        assert title in shown
        assert text in shown
    assert _render(tmp_path, "prom.title", _FIRING).strip() == title
    slack, wechat = _notifier("slack"), _notifier("wechat")
    used = slack["title"] + slack["text"] + wechat["message"]
    assert re.findall(r'template "([\w.]+)"', used) == ["payment_callbacks.title", "payment_callbacks.text"] * 2
    channels = [_notifier("webhook", number)["url"].partition("channel_type=")[2] for number in range(2)]
    assert channels == ["dingtalk&token=TOKEN", "feishu&token=TOKEN"]


def test_every_alert_has_a_chinese_name() -> None:
    named = re.findall(r'if eq \. "(\w+)" }}([^\n]+)', _TEMPLATE.read_text())
    assert [alert for alert, _ in named] == [rule["alert"] for rule in _alerts()]
    assert all(re.search(r"[\u4e00-\u9fff]", name) for _, name in named)


def _alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(_RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def _route(*labels: str) -> str:
    return _amtool("config", "routes", "test", f"--config.file={_EXAMPLE / 'alertmanager.yml'}", *labels).strip()
