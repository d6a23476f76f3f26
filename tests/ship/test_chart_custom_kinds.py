"""Kinds that Kubernetes' own schemas do not know, field by field as their operators document them."""

import json
import re
import shutil
from pathlib import Path

import yaml

from service.domain.lags import LAG_BOUNDS_SECONDS
from service.messaging.rabbitmq.topology import LEDGER_QUEUE
from tests.support.chart import CHART, VALUE_SETS, Manifest, find, find_all, render

RELEASE = {"app.kubernetes.io/name": "payment-callbacks", "app.kubernetes.io/instance": "pc"}


def everything(kind: str) -> Manifest:
    """The one of its kind, without the labels that all objects have."""
    return find(render("everything"), kind)


def test_the_route_leads_from_the_gateway_to_the_receiver_for_callbacks_alone() -> None:
    route = everything("HTTPRoute")
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert route["spec"] == {
        "parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "https"}],
        "hostnames": ["pay.example.com"],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": "/notify"}}],
                "backendRefs": [{"name": "pc-payment-callbacks-receiver", "port": 80}],
            }
        ],
    }


def test_the_ledger_is_scaled_by_its_queue_and_never_to_none() -> None:
    scaled = everything("ScaledObject")
    assert scaled["apiVersion"] == "keda.sh/v1alpha1"
    assert scaled["spec"] == {
        "scaleTargetRef": {"name": "pc-payment-callbacks-ledger"},
        "minReplicaCount": 2,
        "maxReplicaCount": 10,
        "pollingInterval": 15,
        "cooldownPeriod": 300,
        # Where KEDA cannot ask, as many as there are at least.
        "fallback": {"failureThreshold": 3, "replicas": 2},
        "triggers": [
            {
                "type": "rabbitmq",
                "metadata": {
                    "protocol": "amqp",
                    "queueName": "payment.callbacks.ledger",
                    "mode": "QueueLength",
                    "value": "2000",
                },
                "authenticationRef": {"name": "pc-payment-callbacks-ledger"},
            }
        ],
    }


def test_keda_reads_the_brokers_address_from_the_secret_that_the_settings_name() -> None:
    authentication = everything("TriggerAuthentication")
    assert authentication["apiVersion"] == "keda.sh/v1alpha1"
    assert authentication["metadata"]["name"] == "pc-payment-callbacks-ledger"
    assert authentication["spec"] == {
        "secretTargetRef": [{"parameter": "host", "name": "rabbitmq", "key": "url-0"}],
    }


def test_keda_can_be_given_an_authentication_that_is_there() -> None:
    overrides = {"ledger": {"keda": {"triggerAuthentication": "rabbitmq"}}}
    manifests = render("everything", overrides=overrides)
    assert find_all(manifests, "TriggerAuthentication") == []
    (trigger,) = find(manifests, "ScaledObject")["spec"]["triggers"]
    assert trigger["authenticationRef"] == {"name": "rabbitmq"}


def test_the_scaled_queue_is_the_one_that_the_ledger_reads() -> None:
    (trigger,) = everything("ScaledObject")["spec"]["triggers"]
    assert trigger["metadata"]["queueName"] == LEDGER_QUEUE


def test_prometheus_reads_every_role() -> None:
    monitor = everything("PodMonitor")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"] == {
        "selector": {"matchLabels": RELEASE},
        "podTargetLabels": ["app.kubernetes.io/component"],
        "podMetricsEndpoints": [
            {"port": "metrics", "path": "/metrics", "interval": "30s"},
            {"port": "api", "path": "/metrics", "interval": "30s"},
            {"port": "console", "path": "/metrics", "interval": "30s"},
        ],
    }
    ports = {
        port["name"]
        for manifest in find_all(render("everything"), "Deployment")
        for port in manifest["spec"]["template"]["spec"]["containers"][0]["ports"]
    }
    assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= ports


def test_the_alerts_are_the_files_own_and_those_of_the_values(tmp_path: Path) -> None:
    chart = tmp_path / "payment-callbacks"
    shutil.copytree(CHART, chart)
    rule = {
        "alert": "QueueOld",
        "expr": 'max by (queue) (payment_callbacks_queue_age_seconds{queue=~".+"}) > 60',
        "for": "5m",
        "annotations": {"summary": "{{ $labels.queue }} is {{ $value }} s old"},
    }
    (chart / "files" / "alerts.yaml").write_text(yaml.safe_dump({"groups": [{"name": "callbacks", "rules": [rule]}]}))
    rules = find(render(VALUE_SETS["everything"], chart=chart), "PrometheusRule")
    assert rules["apiVersion"] == "monitoring.coreos.com/v1"
    assert rules["metadata"]["labels"]["release"] == "prometheus"
    assert [group["name"] for group in rules["spec"]["groups"]] == ["callbacks", "ours"]
    assert rules["spec"]["groups"][0]["rules"] == [rule]


def test_nobody_is_told_that_a_role_is_absent_that_was_never_deployed() -> None:
    def roles_missed(values: str) -> set[str]:
        rules = find(render(values, overrides={"prometheusRule": {"enabled": True}}), "PrometheusRule")
        (expression,) = [
            rule["expr"]
            for group in rules["spec"]["groups"]
            for rule in group["rules"]
            if rule.get("alert") == "PaymentCallbacksRoleAbsent"
        ]
        return set(re.findall(r'role="(\w+)"', expression))

    assert roles_missed("minimal") == {"receiver", "ledger"}
    assert roles_missed("external-secrets") == {"receiver", "ledger", "dispatcher"}
    assert roles_missed("everything") == {"receiver", "ledger", "inquirer", "dispatcher", "api", "console"}


def test_the_objectives_are_those_of_the_values() -> None:
    def expressions(**objectives: object) -> list[str]:
        values = {"prometheusRule": {"enabled": True, "objectives": objectives}}
        rules = find(render("minimal", overrides=values), "PrometheusRule")
        (group,) = [group for group in rules["spec"]["groups"] if group["name"] == "payment-callbacks.objectives"]
        return [rule["expr"] for rule in group["rules"] if "record" in rule]

    by_default = expressions()
    file = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"][-1]
    assert by_default == [rule["expr"] for rule in file["rules"] if "record" in rule]
    # Each is what the other is by default.
    changed = expressions(finalStatus={"target": 0.999, "seconds": 60}, explained={"target": 0.99})
    assert changed[:2] == ["vector(0.999)", "vector(0.99)"]
    assert changed[2:] == [text.replace('le="300.0"', 'le="60.0"') for text in by_default[2:]]
    assert changed[2:] != by_default[2:]


def test_final_statuses_are_due_at_a_bound_of_the_metrics_buckets() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    objectives = schema["properties"]["prometheusRule"]["properties"]["objectives"]["properties"]
    assert objectives["finalStatus"]["properties"]["seconds"]["enum"] == list(LAG_BOUNDS_SECONDS)


def test_the_dashboard_is_the_file_to_the_letter(tmp_path: Path) -> None:
    chart = tmp_path / "payment-callbacks"
    shutil.copytree(CHART, chart)
    dashboard = json.dumps({"title": "Callbacks", "panels": [{"legendFormat": "{{merchant}}"}]}, indent=2) + "\n"
    (chart / "files" / "dashboard.json").write_text(dashboard)
    shown = find(render(VALUE_SETS["everything"], chart=chart), "ConfigMap", "-dashboard")
    assert shown["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert shown["metadata"]["annotations"] == {"grafana_folder": "Payments"}
    assert shown["data"] == {"payment-callbacks.json": dashboard}


def test_the_smoke_test_is_a_hook_that_leaves_nothing_behind() -> None:
    pod = find(render("everything"), "Pod")
    assert pod["metadata"]["annotations"] == {
        "helm.sh/hook": "test",
        "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded",
    }
    (container,) = pod["spec"]["containers"]
    assert container["args"] == [(CHART / "files" / "smoke.py").read_text()]
    assert {variable["name"]: variable["value"] for variable in container["env"]} == {
        "RECEIVER_URL": "http://pc-payment-callbacks-receiver:80",
        "API_URL": "http://pc-payment-callbacks-api:80",
        "CONSOLE_URL": "http://pc-payment-callbacks-console:80",
    }
