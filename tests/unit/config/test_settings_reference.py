"""docs/settings.md names every setting there is, with its true default, and no other."""

import dataclasses
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from marshmallow import Schema, fields

from service.config import endpoints, settings
from service.config.schema import make_schema
from service.gateway.cipher import RequestDialect

_REFERENCE = Path(__file__).parents[3] / "docs" / "settings.md"
_ROW = re.compile(r"\| `(\w+)` \| (?:`(.*?)`)? ?\|")

_SECTIONS: dict[str, tuple[tuple[str, ...], type]] = {
    "Top level": ((), settings.Settings),
    "`[database]`": (("database",), settings.DatabaseSettings),
    "`[receiver]`": (("receiver",), settings.ReceiverSettings),
    "`[broker]`": (("broker",), settings.BrokerSettings),
    "`[spool]`": (("spool",), settings.SpoolSettings),
    "`[ledger]`": (("ledger",), settings.LedgerSettings),
    "`[inquirer]`": (("inquirer",), settings.InquirerSettings),
    "`[dispatcher]`": (("dispatcher",), settings.DispatcherSettings),
    "`[api]`": (("api",), settings.ApiSettings),
    "`[console]`": (("console",), settings.ConsoleSettings),
    "`[console.openid]`": (("console", "openid"), settings.OpenIdSettings),
    "`[console.proxy]`": (("console", "proxy"), settings.ProxySettings),
    "`[merchants.<slug>]`": (("merchants",), settings.MerchantSettings),
    "`[merchants.<slug>.gateway]`": (("merchants", "gateway"), settings.GatewaySettings),
    "`[[endpoints]]`": (("endpoints",), endpoints.EndpointSettings),
}


#: Names of its own, and no schema: the gateway's protocol checks it.
_DIALECT = "`[merchants.<slug>.gateway.dialect]`"


def _documented() -> dict[str, dict[str, str]]:
    """The rows' defaults by key, by the heading of their section."""
    sections = _REFERENCE.read_text(encoding="utf-8").split("\n## ")[1:]
    return {section.partition("\n")[0]: dict(_ROW.findall(section)) for section in sections}


def _schema(path: tuple[str, ...]) -> Schema:
    schema: Any = make_schema(settings.Settings)()
    for name in path:
        field = schema.fields[name]
        inner = {fields.Dict: "value_field", fields.List: "inner"}.get(type(field))
        schema = (getattr(field, inner) if inner else field).schema
    assert isinstance(schema, Schema)
    return schema


def test_every_section_is_there_and_no_other() -> None:
    assert set(_documented()) == {*_SECTIONS, _DIALECT}


@pytest.mark.parametrize("heading", _SECTIONS)
def test_every_key_is_named_in_its_section(heading: str) -> None:
    path, _ = _SECTIONS[heading]
    known = set(_schema(path).fields)
    if not path:
        known -= {sub[0] for sub, _ in _SECTIONS.values() if sub}
    assert set(_documented()[heading]) == known


def test_every_key_of_a_dialect_is_named() -> None:
    assert set(_documented()[_DIALECT]) == {field.name for field in dataclasses.fields(RequestDialect)}


@pytest.mark.parametrize(
    ("heading", "value"),
    [
        *((heading, value) for heading, (_, value) in _SECTIONS.items()),
        *(("`[[endpoints]]`", kind) for kind in get_args(endpoints.AnyEndpoint)),
        (_DIALECT, RequestDialect),
    ],
)
def test_every_default_is_the_true_one(heading: str, value: type[Any]) -> None:
    said = _documented()[heading]
    for field in dataclasses.fields(value):
        match field.default:
            case bool():
                assert said[field.name] == str(field.default).lower(), field.name
            case int() | float():
                assert float(said[field.name]) == field.default, field.name
            case str() | Path() if field.name in said and field.name != "kind":
                assert said[field.name] == str(field.default), field.name
