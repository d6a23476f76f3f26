"""Requests with more than one possible meaning are refused, and no value is quoted."""

import pytest
from flask import Flask, request
from marshmallow import Schema, fields

from service.api.blueprint import StrictParser
from service.api.problems import Problem


class Body(Schema):
    merchant = fields.String(required=True)
    amount = fields.String()


def read(body: bytes, content_type: str = "application/json") -> object:
    with Flask(__name__).test_request_context("/", method="POST", data=body, content_type=content_type):
        return StrictParser().parse(Body(), request, location="json")


def test_an_object_is_loaded_by_the_schema() -> None:
    assert read('{"merchant": "acme", "amount": "单"}'.encode()) == {"merchant": "acme", "amount": "单"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"merchant": "a", "merchant": "b"}',
        b'{"merchant": NaN}',
        b'{"merchant": Infinity}',
        b"[" * 60_000,
        b'{"merchant": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_two_readers_could_understand_differently_is_refused(body: bytes) -> None:
    with pytest.raises(Problem) as caught:
        read(body)
    assert (caught.value.status, caught.value.kind) == (400, "not-json")


def test_another_content_type_is_refused() -> None:
    with pytest.raises(Problem) as caught:
        read(b"{}", "text/plain")
    assert caught.value.status == 415


@pytest.mark.parametrize("body", [b"[]", b'"6222021234567890128"', b"1", b"null"])
def test_json_that_is_not_an_object_is_invalid(body: bytes) -> None:
    with pytest.raises(Problem) as caught:
        read(body)
    assert caught.value.status == 422


def test_errors_name_the_field_and_quote_no_value() -> None:
    with pytest.raises(Problem) as caught:
        read(b'{"amount": 6222021234567890128, "mobile": "13812345678"}')
    assert {fault.field for fault in caught.value.errors} == {"merchant", "amount", "mobile"}
    assert not any("6222021234567890128" in fault.text or "138" in fault.text for fault in caught.value.errors)


def test_a_repeated_query_parameter_is_refused() -> None:
    with Flask(__name__).test_request_context("/?merchant=a&merchant=b"), pytest.raises(Problem) as caught:
        StrictParser().parse(Body(), request, location="query")
    assert [fault.field for fault in caught.value.errors] == ["merchant"]
