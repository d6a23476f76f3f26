"""The roles as workloads: which there are, how they start, how they are looked at, and how they go."""

from typing import Any

import pytest

from service.cli.report import UNEXPLAINED
from service.serving.health import ANSWER_WITHIN_SECONDS
from tests.support.chart import Manifest, find, find_all, render

CONSUMERS = ("ledger", "inquirer", "dispatcher")


def container(manifest: Manifest) -> Manifest:
    """The only one of a workload's pods."""
    (only,) = manifest["spec"]["template"]["spec"]["containers"]
    found: Manifest = only
    return found


def deployments(values: str, **overrides: Any) -> dict[str, Manifest]:
    """By role."""
    found = find_all(render(values, overrides=overrides), "Deployment")
    return {manifest["metadata"]["labels"]["app.kubernetes.io/component"]: manifest for manifest in found}


@pytest.mark.parametrize(
    ("values", "roles"),
    {
        "minimal": {"receiver", "ledger"},
        "external-secrets": {"receiver", "ledger", "dispatcher"},
        "several-merchants": {"receiver", "ledger", "inquirer", "dispatcher"},
        "everything": {"receiver", "ledger", "inquirer", "dispatcher", "api", "console"},
        "spool": {"ledger"},
    }.items(),
)
def test_the_roles_that_have_something_to_do_are_deployed(values: str, roles: set[str]) -> None:
    assert set(deployments(values)) == roles


def test_every_role_is_one_image_with_its_own_argument() -> None:
    for role, manifest in deployments("everything").items():
        assert container(manifest)["args"] == ["run", role]
        assert "command" not in container(manifest)
        assert container(manifest)["image"].startswith("registry.example.com/payments/payment-callbacks@sha256:")


def test_without_a_digest_the_image_is_the_charts_own_release() -> None:
    assert container(find(render("minimal"), "Deployment", "-ledger"))["image"] == "payment-callbacks:0.1.0"


def test_the_receiver_tells_alive_from_ready_and_asks_no_broker_for_either() -> None:
    receiver = container(deployments("everything")["receiver"])
    assert receiver["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert receiver["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    # A busy receiver is taken out of service long before it is restarted.
    assert patience_seconds(receiver["readinessProbe"]) < patience_seconds(receiver["livenessProbe"])


@pytest.mark.parametrize("role", ["api", "console"])
def test_who_serves_the_ledger_tells_alive_from_ready_and_is_never_restarted_for_its_database(role: str) -> None:
    served = container(deployments("everything")[role])
    assert served["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": role}
    assert served["startupProbe"]["httpGet"] == {"path": "/healthz", "port": role}
    assert served["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": role}
    # It says that the database does not answer; cut off before, it could not.
    assert served["readinessProbe"]["timeoutSeconds"] > ANSWER_WITHIN_SECONDS


@pytest.mark.parametrize("role", ["api", "console"])
def test_who_serves_the_ledger_may_start_as_slowly_as_a_migration(role: str) -> None:
    assert patience_seconds(container(deployments("everything")[role])["startupProbe"]) >= 600


def patience_seconds(probe: Manifest) -> int:
    """How long something may be wrong before it counts."""
    patience: int = probe["periodSeconds"] * probe["failureThreshold"]
    return patience


def test_consumers_are_ready_once_their_metrics_are_there_and_are_never_restarted_from_outside() -> None:
    for role in CONSUMERS:
        manifest = deployments("everything")[role]
        assert container(manifest)["readinessProbe"]["httpGet"] == {"path": "/metrics", "port": "metrics"}
        assert not {"livenessProbe", "startupProbe"} & set(container(manifest))
        assert manifest["spec"]["minReadySeconds"] >= 10


@pytest.mark.parametrize(
    ("role", "min_seconds"),
    [
        ("receiver", 10 + 12.5),  # preStop, drain_seconds
        ("ledger", 15),
        ("inquirer", 40),  # the gateway's timeout_seconds
        ("dispatcher", 30),  # the slowest endpoint's
        ("api", 5 + 45),
        ("console", 5 + 15),
    ],
)
def test_the_grace_period_outlasts_what_a_role_may_have_in_hand(role: str, min_seconds: float) -> None:
    grace_seconds = deployments("everything")[role]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert min_seconds + 10 <= grace_seconds <= min_seconds + 21


@pytest.mark.parametrize("role", ["receiver", "api", "console"])
def test_who_is_called_goes_on_answering_until_the_callers_know(role: str) -> None:
    assert container(deployments("everything")[role])["lifecycle"]["preStop"]["sleep"]["seconds"] >= 5


def test_no_replica_goes_before_another_has_come() -> None:
    for manifest in deployments("everything").values():
        assert manifest["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_with_the_spool_each_receiver_has_a_volume_that_only_a_person_deletes() -> None:
    receiver = find(render("spool"), "StatefulSet")
    (claim,) = receiver["spec"]["volumeClaimTemplates"]
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "fast-ssd",
        "resources": {"requests": {"storage": "2Gi"}},
    }
    assert {"name": "spool", "mountPath": "/var/lib/payment-callbacks"} in container(receiver)["volumeMounts"]
    assert receiver["spec"]["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    service = find(render("spool"), "Service", "-receiver-pods")
    assert receiver["spec"]["serviceName"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"


def test_with_the_spool_a_receiver_is_drained_before_it_goes() -> None:
    receiver = find(render("spool"), "StatefulSet")
    hook = container(receiver)["lifecycle"]["preStop"]["exec"]["command"]
    assert hook == ["payment-callbacks", "spool", "drain", "--at-least", "10", "--within", "70"]
    assert receiver["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= 70 + 10 + 2


def test_with_the_spool_nothing_scales_receivers_down() -> None:
    scaler = find(render("spool"), "HorizontalPodAutoscaler")
    assert scaler["spec"]["behavior"]["scaleDown"] == {"selectPolicy": "Disabled"}
    assert scaler["spec"]["scaleTargetRef"]["kind"] == "StatefulSet"


def test_who_is_scaled_by_others_names_no_number_of_replicas() -> None:
    found = deployments("everything")
    assert {role for role, manifest in found.items() if "replicas" not in manifest["spec"]} == {"receiver", "ledger"}
    scaler = find(render("everything"), "HorizontalPodAutoscaler")
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (3, 12)
    assert scaler["spec"]["scaleTargetRef"]["name"] == found["receiver"]["metadata"]["name"]


def test_every_role_has_a_budget_that_a_single_replica_can_meet() -> None:
    budgets = find_all(render("everything"), "PodDisruptionBudget")
    assert len(budgets) == 6
    assert all(budget["spec"]["maxUnavailable"] == 1 for budget in budgets)


def test_replicas_are_spread_over_zones_and_nodes() -> None:
    for manifest in deployments("everything").values():
        spread = manifest["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert [one["topologyKey"] for one in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        assert all(one["labelSelector"] == manifest["spec"]["selector"] for one in spread)


def test_the_migration_is_no_hook_and_has_a_name_of_its_own_in_every_revision() -> None:
    job = find(render("minimal"), "Job")
    assert job["metadata"]["name"].startswith("pc-payment-callbacks-migrate-1-")
    assert "annotations" not in job["metadata"]
    assert container(job)["args"] == ["migrate"]
    other = find(render("minimal", overrides={"image": {"tag": "0.2.0"}}), "Job")
    assert other["metadata"]["name"] != job["metadata"]["name"]


def test_a_rollout_has_not_failed_before_the_migration_that_it_waits_for() -> None:
    manifests = render("everything")
    deadline_seconds = find(manifests, "Job")["spec"]["activeDeadlineSeconds"]
    for role, manifest in deployments("everything").items():
        if role != "receiver":
            assert manifest["spec"]["progressDeadlineSeconds"] > deadline_seconds


def test_a_migration_that_failed_leaves_its_log() -> None:
    spec = find(render("minimal"), "Job")["spec"]["template"]["spec"]
    assert spec["restartPolicy"] == "Never"


def test_payloads_are_pruned_every_night_where_that_is_wanted() -> None:
    assert find_all(render("minimal"), "CronJob") == []
    spec = find(render("everything"), "CronJob", "-prune")["spec"]
    (only,) = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert only["args"] == ["prune", "--keep-days", "90"]
    assert spec["schedule"] == "17 3 * * *"


def test_the_report_is_printed_every_day_and_not_tried_again_where_a_person_has_to_look() -> None:
    spec = find(render("everything"), "CronJob", "-report")["spec"]
    job = spec["jobTemplate"]["spec"]
    (only,) = job["template"]["spec"]["containers"]
    assert (only["args"], spec["schedule"]) == (["report"], "30 9 * * *")
    assert job["podFailurePolicy"]["rules"] == [
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [UNEXPLAINED]}}
    ]


def test_no_empty_folder_of_a_pod_keeps_its_node_from_going() -> None:
    for manifest in deployments("everything").values():
        template = manifest["spec"]["template"]
        own = {volume["name"] for volume in template["spec"]["volumes"] if volume["name"] == "tmp"}
        annotations = template["metadata"]["annotations"]
        assert {annotations["cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"]} == own


def test_a_roles_own_values_come_on_top_of_those_of_all_pods() -> None:
    found = deployments("everything")
    assert {variable["name"] for variable in container(found["receiver"])["env"]} >= {"TZ", "PYTHONFAULTHANDLER"}
    assert {variable["name"] for variable in container(found["ledger"])["env"]} == {"PAYMENT_CALLBACKS_CONFIG", "TZ"}
    template = found["receiver"]["spec"]["template"]
    assert (
        template["metadata"]["annotations"].items()
        >= {
            "reloader.stakater.com/auto": "true",
            "example.com/exposed": "true",
        }.items()
    )
    assert {"name": "scratch", "emptyDir": {}} in template["spec"]["volumes"]


def test_the_platform_may_choose_the_user() -> None:
    template = deployments("minimal", runAsUser=None)["ledger"]["spec"]["template"]
    assert template["spec"]["securityContext"] == {
        "runAsNonRoot": True,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
