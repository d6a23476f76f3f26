"""What the chart renders, for every set of values: what Kubernetes takes, restricted, and without a secret in it."""

import re
from collections.abc import Iterator

import kubernetes_validate
import pytest
import yaml

from tests.support.chart import CHART, VALUE_SETS, Manifest, find, find_all, helm, pod_specs, render

# The oldest that the chart is for (Chart.yaml says so), and the newest that the schemas know.
KUBERNETES_VERSIONS = ("1.30.0", "1.37.0")
# Kubernetes' own schemas do not know them; test_chart_custom_kinds.py does.
CUSTOM_KINDS = {"HTTPRoute", "PodMonitor", "PrometheusRule", "ScaledObject", "TriggerAuthentication", "ExternalSecret"}

every_value_set = pytest.mark.parametrize("values", VALUE_SETS)


@every_value_set
def test_helm_has_nothing_to_say_against_it(values: str) -> None:
    path = VALUE_SETS[values]
    report = helm("lint", "--strict", CHART, *(["--values", str(path)] if path else []))
    assert "[WARNING]" not in report
    assert "[ERROR]" not in report


@every_value_set
@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_kubernetes_takes_every_manifest(values: str, version: str) -> None:
    for manifest in render(values):
        if manifest["kind"] not in CUSTOM_KINDS:
            kubernetes_validate.validate(manifest, version, strict=True)


@every_value_set
def test_no_two_objects_have_one_name(values: str) -> None:
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in render(values)]
    assert len(names) == len(set(names))


@every_value_set
def test_every_object_says_whose_it_is(values: str) -> None:
    for manifest in render(values):
        if manifest["kind"] != "ExternalSecret" and not manifest["metadata"]["name"].endswith("-extra"):
            labels = manifest["metadata"]["labels"]
            assert labels["app.kubernetes.io/instance"] == "pc"
            assert labels["app.kubernetes.io/name"] == "payment-callbacks"


@every_value_set
def test_every_container_is_restricted(values: str) -> None:
    specs = pod_specs(render(values))
    assert specs
    for name, spec in specs.items():
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] == security["runAsGroup"] == security["fsGroup"] == 10001, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(spec), name
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["resources"]["requests"]["memory"], name
            assert container["resources"]["limits"]["memory"], name
        assert not [volume for volume in spec.get("volumes", []) if "hostPath" in volume], name


@every_value_set
def test_no_manifest_is_a_secret_or_holds_one(values: str) -> None:
    manifests = render(values)
    assert find_all(manifests, "Secret") == []
    for path, text in _texts(manifests):
        assert not re.search(r"amqps?://[^$\s]*:[^$\s]*@|postgres(ql)?://|whsec_[A-Za-z0-9+/]{20}", text), path
    for manifest in manifests:
        for spec in pod_specs([manifest]).values():
            for container in spec["containers"]:
                for variable in container.get("env", []):
                    if re.search("SECRET|PASSWORD|TOKEN|KEY|BROKER_URL|DATABASE_URL|AMQP", variable["name"]):
                        assert set(variable) == {"name", "valueFrom"}


@every_value_set
def test_every_mounted_volume_is_there_and_every_volume_is_mounted(values: str) -> None:
    manifests = render(values)
    claimed = {
        claim["metadata"]["name"]
        for manifest in find_all(manifests, "StatefulSet")
        for claim in manifest["spec"]["volumeClaimTemplates"]
    }
    for name, spec in pod_specs(manifests).items():
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        mounted = {mount["name"] for container in spec["containers"] for mount in container.get("volumeMounts", [])}
        assert volumes <= mounted <= volumes | claimed, name


@every_value_set
def test_selectors_find_their_own_pods_and_no_others(values: str) -> None:
    manifests = render(values)
    labels = {
        manifest["metadata"]["name"]: manifest["spec"]["template"]["metadata"]["labels"]
        for kind in ("Deployment", "StatefulSet", "Job")
        for manifest in find_all(manifests, kind)
    }
    for kind in ("Deployment", "StatefulSet", "Service", "PodDisruptionBudget"):
        for manifest in find_all(manifests, kind):
            selector = manifest["spec"]["selector"]
            selector = selector.get("matchLabels", selector)
            found = [name for name, its in labels.items() if selector.items() <= its.items()]
            assert [f"{name}-pods" for name in found] == [manifest["metadata"]["name"]] or found == [
                manifest["metadata"]["name"]
            ]


def test_rendering_twice_gives_the_same() -> None:
    command = ("template", "pc", CHART, "--values", str(VALUE_SETS["everything"]))
    assert helm(*command) == helm(*command)


def test_everything_on_makes_every_kind() -> None:
    kinds = {manifest["kind"] for manifest in render("everything")}
    assert kinds >= {"Deployment", "Job", "Pod", "ConfigMap", "Service", "ServiceAccount", "Ingress", "NetworkPolicy"}
    assert kinds >= {"HorizontalPodAutoscaler", "PodDisruptionBudget"}
    assert kinds >= CUSTOM_KINDS - {"ExternalSecret"}


def test_whoever_installs_it_without_a_merchant_is_told() -> None:
    assert "NOTHING STARTS YET" in _notes({})


def test_the_notes_warn_of_tokens_in_the_ingress_log() -> None:
    path = VALUE_SETS["everything"]
    assert path is not None
    notes = _notes(yaml.safe_load(path.read_text()))
    assert "ITS ACCESS LOG WILL SHOW TOKENS" in notes
    assert "NOTHING STARTS YET" not in notes


def test_extra_objects_may_be_templates() -> None:
    assert find(render("everything"), "ConfigMap", "-extra")["metadata"]["name"] == "pc-payment-callbacks-extra"
    external = find(render("external-secrets"), "ExternalSecret")
    assert external["metadata"]["labels"] == {"app.kubernetes.io/instance": "pc"}


def _notes(values: Manifest) -> str:
    return helm("install", "pc", CHART, "--dry-run=client", "--values", "-", stdin=yaml.safe_dump(values)).partition(
        "NOTES:"
    )[2]


def _texts(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _texts(below, f"{path}.{key}")
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _texts(below, f"{path}[{index}]")
    elif isinstance(value, str):
        yield path, value
