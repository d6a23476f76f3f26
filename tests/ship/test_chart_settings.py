"""The settings that the chart writes: the service takes them, and no role reads more than it needs."""

import base64
import hashlib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from marshmallow import Schema, fields

from service.config.reading import parse_settings
from service.config.schema import SectionByKind, make_schema
from service.config.settings import ApiScope, Settings
from tests.support.chart import CHART, VALUE_SETS, find, pod_specs, render, settings_of

SECRETS_FOLDER = "/run/secrets/payment-callbacks"
# What the chart decides, so that no value may.
DECIDED = {
    "data_directory", "receiver.bind", "api.bind", "console.bind",
    "receiver.metrics_bind", "ledger.metrics_bind", "inquirer.metrics_bind", "dispatcher.metrics_bind",
}  # fmt: skip
# Nothing can be said against what they hold, whatever setting they are for.
SECRETS = {
    "url": "amqps://user:password@rabbitmq.example.com/vhost",
    "connection_string": "amqp://user:password@rabbitmq.example.com",
    "uri": "postgresql://user:password@postgres.example.com/payments",
    "aes-key": "0123456789abcdef",
    "gateway-ca.pem": "-----BEGIN CERTIFICATE-----",
    "webhook-secret": "whsec_" + base64.b64encode(bytes(32)).decode(),
}
ENVIRONMENT = {"BROKER_URL": "amqp://user:password@rabbitmq.example.com"}

with_merchants = pytest.mark.parametrize("values", [name for name in VALUE_SETS if name != "default"])


def secret_in(path: str) -> str:
    """What a file that a pod is given would hold; a key of 64 characters where nothing else is wanted."""
    if "database" in path:
        return SECRETS["uri"]
    key = Path(path).name.removesuffix("-0").removesuffix("-1").removesuffix("-2")
    return SECRETS.get(key, hashlib.sha256(path.encode()).hexdigest())


def load(document: str, folder: Path) -> Settings:
    """The settings as a pod reads them, its secrets in files below `folder`."""
    for path in re.findall(r'file = "([^"]+)"', document):
        file = folder / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(secret_in(path))
    document = re.sub(r'file = "/', f'file = "{folder}/', document)
    return parse_settings(document, ENVIRONMENT, name="settings", folder=folder)


@with_merchants
def test_the_service_takes_every_document(values: str, tmp_path: Path) -> None:
    for name, document in settings_of(render(values)).items():
        settings = load(document, tmp_path / name)
        assert settings.broker.urls
        assert settings.data_directory == Path("/var/lib/payment-callbacks")


@with_merchants
def test_no_document_gives_cause_to_doubt(values: str, tmp_path: Path) -> None:
    documents = settings_of(render(values))
    assert load(documents["consumers.toml"], tmp_path).warnings() == []


@with_merchants
def test_what_is_written_is_what_was_given(values: str) -> None:
    path = VALUE_SETS[values]
    assert path is not None
    given = yaml.safe_load(path.read_text())["settings"]
    document = tomllib.loads(settings_of(render(values))["consumers.toml"])
    for slug, merchant in given["merchants"].items():
        assert document["merchants"][slug] == as_file(merchant)
    assert document.get("endpoints", []) == as_file(given.get("endpoints", []))


def as_file(value: Any) -> Any:
    """A value in which secrets are named by the files that they appear in."""
    if isinstance(value, list):
        return [as_file(item) for item in value]
    if isinstance(value, dict):
        if set(value) == {"secret", "key"}:
            return {"file": f"{SECRETS_FOLDER}/{value['secret']}/{value['key']}"}
        return {key: as_file(item) for key, item in value.items()}
    return value


def test_texts_numbers_and_odd_keys_survive_the_way_into_toml() -> None:
    odd = {
        "dialect": {"a key": 'quotes " and \\ and 中文', "tab": "a\tb\nc"},
        "not_found_messages": ["<&>", "", "é"],
        "url": "https://gateway.example.com",
        "ua": "1e3",
        "aes_key": {"env": "KEY"},
        "timeout_seconds": 12.25,
    }
    merchant = {"pay_types": ["007"], "amount_unit": "fen", "gateway": odd, "max_inquiries_per_day": 1_000_000}
    settings = {"settings": {"merchants": {"acme": merchant}, "spool": {"max_bytes": 2**40}}}
    document = tomllib.loads(settings_of(render("default", overrides=settings))["consumers.toml"])
    assert document["merchants"]["acme"] == merchant
    assert isinstance(document["merchants"]["acme"]["max_inquiries_per_day"], int)
    assert document["spool"]["max_bytes"] == 2**40


@with_merchants
def test_the_receiver_holds_no_gateways_key_no_database_and_no_downstreams_secret(values: str) -> None:
    manifests = render(values)
    document = tomllib.loads(settings_of(manifests)["receiver.toml"])
    assert set(document) <= {"data_directory", "receiver", "broker", "spool", "merchants"}
    assert all("gateway" not in merchant for merchant in document["merchants"].values())
    allowed = {
        key["key"]["file"] for merchant in document["merchants"].values() for key in merchant.get("token_keys", [])
    }
    allowed |= {url["file"] for url in document["broker"]["urls"] if "file" in url}
    (spec,) = [spec for name, spec in pod_specs(manifests).items() if name.endswith("-receiver")]
    assert {f"{SECRETS_FOLDER}/{path}" for path in mounted_secrets(spec)} == allowed


@with_merchants
def test_the_receiver_requires_the_same_trust_without_the_gateway(values: str, tmp_path: Path) -> None:
    documents = settings_of(render(values))
    everything = load(documents["consumers.toml"], tmp_path / "consumers").merchants
    receiver = load(documents["receiver.toml"], tmp_path / "receiver").merchants
    assert {slug: merchant.required_trust for slug, merchant in receiver.items()} == {
        slug: merchant.required_trust for slug, merchant in everything.items()
    }


@with_merchants
def test_every_pod_finds_the_files_that_its_settings_name(values: str) -> None:
    manifests = render(values)
    for name, spec in pod_specs(manifests).items():
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        if "settings" in volumes:
            (item,) = volumes["settings"]["configMap"]["items"]
            named = re.findall(rf'file = "{SECRETS_FOLDER}/([^"]+)"', settings_of(manifests)[item["key"]])
            assert mounted_secrets(spec) == set(named), name


def mounted_secrets(spec: Mapping[str, Any]) -> set[str]:
    """`name/key` of each."""
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == "secrets"]
    return {item["path"] for source in volume["projected"]["sources"] for item in source["secret"]["items"]}


def test_only_the_console_knows_what_signs_sessions() -> None:
    documents = settings_of(render("everything"))
    assert {name for name, text in documents.items() if "payment-callbacks-console" in text} == {"console.toml"}


def test_only_api_and_console_know_the_callers_tokens() -> None:
    documents = settings_of(render("everything"))
    assert "payment-callbacks-api" in documents["api.toml"]
    assert "payment-callbacks-api" in documents["console.toml"]
    assert "payment-callbacks-api" not in documents["consumers.toml"] + documents["receiver.toml"]


def test_a_change_restarts_the_roles_that_read_it_and_no_others() -> None:
    def checksums(**tokens: object) -> dict[str, str]:
        manifests = render("everything", overrides={"settings": {"api": tokens}} if tokens else None)
        return {
            role: find(manifests, "Deployment", role)["spec"]["template"]["metadata"]["annotations"][
                "checksum/settings"
            ]
            for role in ("receiver", "ledger", "inquirer", "dispatcher", "api", "console")
        }

    before, after = checksums(), checksums(threads=3)
    assert {role for role in before if before[role] != after[role]} == {"api", "console"}


def test_the_charts_schema_knows_every_scope_and_invents_none() -> None:
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    token = schema["definitions"]["settings"]["properties"]["api"]["properties"]["tokens"]["items"]
    assert token["properties"]["scopes"]["items"]["enum"] == list(ApiScope)
    assert schema["definitions"]["groups"]["additionalProperties"]["items"]["enum"] == list(ApiScope)


def test_the_charts_schema_knows_every_setting_and_invents_none() -> None:
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    theirs = set(keys_of_chart(schema["definitions"]["settings"], schema["definitions"]))
    ours = set(keys_of_service(make_schema(Settings)()))
    assert theirs == ours - DECIDED


def test_the_charts_schema_knows_the_keys_of_each_kind_of_endpoint() -> None:
    endpoint = yaml.safe_load((CHART / "values.schema.json").read_text())["definitions"]["endpoint"]
    endpoints = make_schema(Settings)().fields["endpoints"]
    assert isinstance(endpoints, fields.List)
    assert isinstance(endpoints.inner, SectionByKind)
    schemas = endpoints.inner.schemas
    assert endpoint["properties"]["kind"]["enum"] == list(schemas)
    kinds = {clause["if"]["properties"]["kind"]["const"]: clause["then"] for clause in endpoint["allOf"]}
    assert set(kinds) == set(schemas)
    for kind, schema in schemas.items():
        refused = {key for key, below in kinds[kind].get("properties", {}).items() if below is False}
        assert set(endpoint["properties"]) - refused == set(schema.fields), kind
        required = {*endpoint["required"], *kinds[kind].get("required", [])}
        assert required - {"kind"} == {key for key, field in schema.fields.items() if field.required}, kind


def test_every_role_with_metrics_of_its_own_serves_them() -> None:
    document = tomllib.loads(settings_of(render("everything"))["api.toml"])
    roles = {key.partition(".")[0] for key in keys_of_service(make_schema(Settings)()) if key.endswith(".metrics_bind")}
    assert {role for role, section in document.items() if "metrics_bind" in section} == roles
    for name, spec in pod_specs(render("everything")).items():
        ports = {port["name"]: port["containerPort"] for port in spec["containers"][0].get("ports", [])}
        assert (ports.get("metrics") == 9090) == (name.rpartition("-")[2] in roles), name


def keys_of_service(schema: Schema, prefix: str = "") -> list[str]:
    """Dotted names of all settings; `*` stands for a merchant's slug."""
    found = []
    for name, field in schema.fields.items():
        path = f"{prefix}{name}"
        found.append(path)
        inner = field
        if isinstance(field, fields.Dict) and isinstance(field.value_field, fields.Nested):
            inner, path = field.value_field, f"{path}.*"
        elif isinstance(field, fields.List):
            inner = field.inner
        if isinstance(inner, fields.Nested | SectionByKind):
            found += keys_of_service(inner.schema, f"{path}.")
    return found


def keys_of_chart(node: Mapping[str, Any], definitions: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The same of the chart's schema; a secret is a leaf."""
    found = []
    for name, below in node.get("properties", {}).items():
        path = f"{prefix}{name}"
        found.append(path)
        inner = below.get("items", below)
        if name == "merchants" and "additionalProperties" in below:
            inner, path = below["additionalProperties"], f"{path}.*"
        reference = inner.get("$ref", "").rpartition("/")[2]
        if reference != "secret":
            found += keys_of_chart(definitions.get(reference, inner), definitions, f"{path}.")
    return found
