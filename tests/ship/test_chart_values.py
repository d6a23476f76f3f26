"""What the chart refuses: unknown keys, wrong types, secrets in plain sight, and a queue that nobody reads."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from tests.support.chart import CHART, HelmError, render

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())

KEY = {"kid": "k1", "key": {"secret": "acme", "key": "token-key"}}
MERCHANT = {"pay_types": ["1"], "amount_unit": "yuan"}
GATEWAY = {"url": "https://gateway.example.com", "ua": "A", "aes_key": {"secret": "acme", "key": "aes"}}
WEBHOOK = {"name": "shop", "kind": "webhook", "url": "https://shop.example.com", "secrets": [{"env": "SHOP"}]}


def merchant(**changed: Any) -> dict[str, Any]:
    """Values with one merchant."""
    return {"settings": {"merchants": {"acme": {**MERCHANT, **changed}}}}


def endpoint(**changed: Any) -> dict[str, Any]:
    """Values with one endpoint."""
    return {"settings": {"endpoints": [{**WEBHOOK, **changed}]}}


REFUSED = {
    # a secret itself, where only its whereabouts may stand
    "a token key in plain sight": (merchant(token_keys=[{"kid": "k1", "key": "x" * 32}]), "token_keys/0/key"),
    "an AES key in plain sight": (merchant(gateway={**GATEWAY, "aes_key": "0123456789abcdef"}), "gateway/aes_key"),
    "a webhook's secret in plain sight": (endpoint(secrets=["whsec_AAAA"]), "endpoints/0/secrets/0"),
    "a broker's URL in plain sight": ({"settings": {"broker": {"urls": ["amqp://u:p@h"]}}}, "broker/urls/0"),
    "a database's URL in plain sight": ({"settings": {"database_url": "postgresql://u:p@h/d"}}, "database_url"),
    "an API token in plain sight": ({"settings": {"api": {"tokens": [{"name": "a", "token": "x" * 32}]}}}, "token"),
    # half of a reference, or two at once
    "a secret without its key": (merchant(token_keys=[{"kid": "k1", "key": {"secret": "acme"}}]), "token_keys/0/key"),
    "a secret from two places": (merchant(token_keys=[{"kid": "k1", "key": {"env": "A", "file": "/a"}}]), "token_keys"),
    "a relative file": (merchant(token_keys=[{"kid": "k1", "key": {"file": "a"}}]), "token_keys/0/key"),
    "a secret's name that climbs": ({"settings": {"database_url": {"secret": "../a", "key": "b"}}}, "database_url"),
    # unknown keys and wrong types
    "an unknown setting": ({"settings": {"reciever": {}}}, "reciever"),
    "an unknown merchant's setting": (merchant(amount_units="fen"), "amount_units"),
    "what the chart decides": ({"settings": {"receiver": {"bind": "127.0.0.1:1"}}}, "bind"),
    "a merchant without an amount's unit": ({"settings": {"merchants": {"acme": {"pay_types": ["1"]}}}}, "amount_unit"),
    "a slug in capitals": ({"settings": {"merchants": {"ACME": MERCHANT}}}, "ACME"),
    "a number as a text": ({"receiver": {"replicas": "2"}}, "receiver/replicas"),
    "a text as a number": (merchant(pay_types=[7]), "pay_types/0"),
    "a switch as a text": ({"podMonitor": {"enabled": "yes"}}, "podMonitor/enabled"),
    "three keys for tokens": (merchant(token_keys=[KEY, KEY, KEY]), "token_keys"),
    "a public_url with a path": ({"settings": {"receiver": {"public_url": "https://a.example/x"}}}, "public_url"),
    "a webhook without a secret": ({"settings": {"endpoints": [{**WEBHOOK, "secrets": []}]}}, "secrets"),
    "an amqp endpoint with a URL": (endpoint(kind="amqp"), "endpoints/0"),
    # what would lose news, or weaken a pod
    "a ledger scaled to none": ({"ledger": {"keda": {"enabled": True, "minReplicas": 0}}}, "keda/minReplicas"),
    "no replicas": ({"dispatcher": {"replicas": 0}}, "dispatcher/replicas"),
    "root": ({"runAsUser": 0}, "runAsUser"),
    "another security context": ({"pods": {"securityContext": {"privileged": True}}}, "securityContext"),
    "a digest that is none": ({"image": {"digest": "latest"}}, "image/digest"),
    "an HTTPRoute to nowhere": ({"receiver": {"httpRoute": {"enabled": True}}}, "parentRefs"),
    "a spread that selects for itself": (
        {
            "pods": {
                "topologySpread": [{"topologyKey": "a", "maxSkew": 1, "whenUnsatisfiable": "b", "labelSelector": {}}]
            }
        },
        "topologySpread/0",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str) -> None:
    values, named = REFUSED[what]
    with pytest.raises(HelmError) as refusal:
        render("default", overrides=values)
    assert "values don't meet the specifications of the schema" in str(refusal.value)
    assert named in str(refusal.value)


def test_keda_without_a_secret_to_read_the_brokers_address_from_is_refused() -> None:
    broker = {"settings": {"broker": {"urls": [{"env": "AMQP"}]}}, "ledger": {"keda": {"enabled": True}}}
    with pytest.raises(HelmError, match="triggerAuthentication"):
        render("default", overrides=broker)


def test_an_unknown_key_is_refused_wherever_it_stands() -> None:
    for path, node in closed_objects(VALUES, SCHEMA):
        values: dict[str, Any] = {"surprise": 1}
        for key in reversed(path):
            values = {key: values}
        with pytest.raises(HelmError, match="surprise"):
            render("default", overrides=values)
        assert node["additionalProperties"] is False


def closed_objects(
    value: Any, node: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every object among the values whose keys are known, with its schema."""
    node = SCHEMA["definitions"].get(node.get("$ref", "").rpartition("/")[2], node)
    if "properties" in node:
        yield path, node
        for key, below in value.items():
            assert key in node["properties"], f"the schema does not know {'.'.join((*path, key))}"
            if isinstance(below, dict):
                yield from closed_objects(below, node["properties"][key], (*path, key))


def test_the_chart_can_be_part_of_another() -> None:
    assert render("default", overrides={"global": {"anything": 1}}) == render("default")
