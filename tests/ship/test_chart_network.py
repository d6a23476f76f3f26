"""Who can reach whom."""

from typing import Any

import pytest

from tests.support.chart import Manifest, find, find_all, render

BROKER, DATABASE = {5671, 5672}, {5432}


def policy(values: str, role: str, **overrides: Any) -> Manifest:
    """The rules for a role's pods."""
    spec: Manifest = find(render(values, overrides=overrides), "NetworkPolicy", f"callbacks-{role}")["spec"]
    assert spec["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == role
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    return spec


def ports_out(spec: Manifest) -> set[int]:
    """Every TCP port that it may connect to, the DNS's left out."""
    return {port["port"] for rule in spec["egress"] for port in rule["ports"] if port["protocol"] == "TCP"} - {53}


def ports_in(spec: Manifest) -> set[str]:
    """Every port that others may connect to."""
    return {port["port"] for rule in spec.get("ingress", []) for port in rule["ports"]}


def test_everything_that_is_not_allowed_is_denied() -> None:
    spec = find(render("minimal"), "NetworkPolicy", "-default-deny")["spec"]
    assert spec["podSelector"] == {
        "matchLabels": {"app.kubernetes.io/name": "payment-callbacks", "app.kubernetes.io/instance": "pc"}
    }
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & set(spec)


def test_each_role_reaches_what_it_needs_and_no_more() -> None:
    reached = {
        role: ports_out(policy("several-merchants", role))
        for role in ("receiver", "ledger", "inquirer", "dispatcher", "migrate", "test")
    }
    assert reached == {
        "receiver": BROKER,
        "ledger": BROKER | DATABASE,
        "inquirer": DATABASE | {443, 8443},  # as the gateways' URLs say
        "dispatcher": DATABASE | {443, 8080},  # as the endpoints' URLs say
        "migrate": DATABASE,
        "test": {8080, 8081},
    }


@pytest.mark.parametrize("job", ["prune", "report"])
def test_a_nightly_job_reaches_the_database_alone(job: str) -> None:
    assert ports_out(policy("everything", job)) == DATABASE | {4318}  # extraEgress


def test_the_dispatcher_reaches_the_broker_where_an_endpoint_is_on_it() -> None:
    assert ports_out(policy("external-secrets", "dispatcher")) == BROKER | DATABASE
    assert ports_out(policy("everything", "dispatcher")) == BROKER | DATABASE | {443, 4318}


def test_the_api_reaches_gateways_only_where_there_are_some() -> None:
    tokens = {"settings": {"api": {"tokens": [{"name": "shop", "token": {"env": "T"}, "scopes": ["read"]}]}}}
    assert ports_out(policy("minimal", "api", **tokens)) == DATABASE
    assert ports_out(policy("several-merchants", "api", **tokens)) == DATABASE | {443, 8443}


def test_the_console_reaches_the_identity_provider_if_there_is_one_and_no_gateway() -> None:
    assert ports_out(policy("everything", "console")) == DATABASE | {8444, 4318}  # extraEgress
    keys = {"settings": {"console": {"session_keys": [{"env": "K"}]}}}
    assert ports_out(policy("several-merchants", "console", **keys)) == DATABASE
    assert ports_out(policy("several-merchants", "test", **keys)) == {8080, 8081, 8082}


def test_a_gateway_behind_a_proxy_is_reached_by_the_proxys_port() -> None:
    gateway = {
        "url": "https://gateway.example.com/",
        "ua": "ACME",
        "aes_key": {"env": "KEY"},
        "proxy": "http://proxy.example.com:3128",
    }
    acme = {"pay_types": ["1"], "amount_unit": "yuan", "gateway": gateway}
    spec = policy("minimal", "inquirer", settings={"merchants": {"acme": acme}})
    assert ports_out(spec) == DATABASE | {3128}
    gateway["proxy"] = {"env": "GATEWAY_PROXY"}  # what it says is a secret
    assert ports_out(policy("minimal", "inquirer", settings={"merchants": {"acme": acme}})) == DATABASE | {443}


def test_only_who_serves_something_lets_anybody_in() -> None:
    assert ports_in(policy("everything", "receiver")) == {"http", "metrics"}
    assert ports_in(policy("everything", "api")) == {"api"}
    assert ports_in(policy("everything", "console")) == {"console"}
    for role in ("ledger", "inquirer", "dispatcher"):
        assert ports_in(policy("everything", role)) == {"metrics"}
    for once in ("migrate", "prune", "report", "test"):
        assert ports_in(policy("everything", once)) == set()


def test_the_public_reaches_the_receiver_by_its_own_port_and_never_its_metrics() -> None:
    public, metrics = policy("minimal", "receiver")["ingress"]
    assert public == {"ports": [{"protocol": "TCP", "port": "http"}]}
    assert metrics["from"] == [{"namespaceSelector": {}}]


def test_peers_can_be_named_and_the_test_still_gets_through() -> None:
    public, _ = policy("everything", "receiver")["ingress"]
    assert public["from"][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "ingress-nginx"}
    assert public["from"][1]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "test"
    peers = [rule.get("to") for rule in policy("everything", "inquirer")["egress"]]
    assert [{"ipBlock": {"cidr": "10.20.0.0/24"}}] in peers
    assert [{"ipBlock": {"cidr": "203.0.113.0/24"}}] in peers


def test_only_the_receiver_has_a_way_in_from_outside() -> None:
    manifests = render("everything")
    receiver = find(manifests, "Service", "-receiver")["metadata"]["name"]
    (rule,) = find(manifests, "Ingress", "-receiver")["spec"]["rules"]
    assert rule["host"] == "pay.example.com"
    (path,) = rule["http"]["paths"]
    assert (path["path"], path["backend"]["service"]["name"]) == ("/notify", receiver)
    types = {manifest["metadata"]["name"]: manifest["spec"]["type"] for manifest in find_all(manifests, "Service")}
    own = {"pc-payment-callbacks-api": "ClusterIP", "pc-payment-callbacks-console": "ClusterIP"}
    assert types == {receiver: "LoadBalancer", **own}


def test_the_console_has_a_way_in_only_where_it_is_asked_for() -> None:
    ingress = find(render("everything"), "Ingress", "-console")["spec"]
    assert ingress["ingressClassName"] == "internal"
    assert ingress["tls"] == [{"hosts": ["console.example.com"], "secretName": "console-example-com"}]
    (rule,) = ingress["rules"]
    assert rule["host"] == "console.example.com"
    (path,) = rule["http"]["paths"]
    assert (path["path"], path["backend"]["service"]["name"]) == ("/", "pc-payment-callbacks-console")
    peers = policy("everything", "console")["ingress"][0]["from"]
    assert peers[0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "ingress-internal"}
    keys = {"settings": {"console": {"session_keys": [{"env": "K"}]}}}
    assert find_all(render("minimal", overrides=keys), "Ingress") == []
    assert find_all(render("minimal", overrides={"console": {"ingress": {"enabled": True}}}), "Ingress") == []


def test_policies_can_be_left_to_the_platform() -> None:
    assert find_all(render("minimal", overrides={"networkPolicy": {"enabled": False}}), "NetworkPolicy") == []
