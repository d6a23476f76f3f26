from datetime import UTC, datetime
from typing import Any

import pytest

from service.config.secrets import Secret
from service.config.settings import GatewaySettings
from service.gateway.client import GatewayClient
from service.gateway.errors import CertificatesUnusable, DialectInvalid, KeyUnusable, PlainHttpRefused, UrlUnusable
from service.gateway.requests import AmountUnit

KEY = "0123456789abcdef"


def make(url: str = "https://gateway.example.com/api", *, key: Any = KEY, **settings: Any) -> GatewayClient:
    return GatewayClient(
        settings=GatewaySettings(url=url, ua="ACME", aes_key=Secret(key), **settings),
        amount_unit=AmountUnit.YUAN,
        pay_types={"baofoo_001"},
        clock=lambda: datetime.now(UTC),
    )


@pytest.mark.parametrize(
    "url",
    [
        "http://gateway.example.com/",
        "http://10.0.0.1/",
        "http://127.0.0.1.example.com/",
        "ftp://localhost/",
        "https://",
        "",
    ],
)
def test_plain_http_to_another_machine_is_refused(url: str) -> None:
    with pytest.raises(PlainHttpRefused):
        make(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://gateway.example.com:99999/",
        "https://[::1/",
        "https://gateway:port/",
        "https://user:geheim@gateway/",
        "https://user:ge/heim@gateway/",
        "https://gateway/a\nb",
        "https://gateway/a b",
        "https://gateway/%zz",
        "https://gateway/#geheim",
        "https://a..b/",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(UrlUnusable) as caught:
        make(url)
    assert "heim" not in str(caught.value)
    assert "port" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8090/gateway", "http://localhost/", "http://[::1]:80/"])
def test_plain_http_to_this_machine_is_allowed(url: str) -> None:
    make(url)


def test_plain_http_is_allowed_where_it_was_asked_for() -> None:
    make("http://gateway.example.com/", allow_plain_http=True)


def test_a_key_that_is_none_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(KeyUnusable):
        make(key="short")


def test_a_dialect_that_nobody_knows_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(DialectInvalid):
        make(dialect={"mode": "rot13"})


def test_certificates_that_are_none_are_refused_before_anything_is_sent() -> None:
    with pytest.raises(CertificatesUnusable):
        make(ca_certificates="no PEM")
