import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from service.config.secrets import Secret
from service.config.settings import GatewaySettings
from service.gateway.client import GatewayClient
from service.gateway.messages import AmountUnit, SingleWithholdArgs
from service.sandbox.server import SandboxServer
from service.sandbox.settings import Account, SandboxSettings, Timing
from tests.support.http_server import make_certificate

KEY = "0123456789abcdef"


@pytest.fixture
def start_sandbox() -> Iterator[Callable[..., SandboxServer]]:
    with ExitStack() as stack:

        def start(
            *, dialect: dict[str, str] | None = None, amount_unit: str = "yuan", aes_key: str = KEY
        ) -> SandboxServer:
            account = Account(
                ua="ACME",
                aes_key=Secret(aes_key),
                pay_types=frozenset({"baofoo_001"}),
                dialect=dialect or {},
                amount_unit=amount_unit,
            )
            settings = SandboxSettings(
                accounts=(account,), bind="127.0.0.1:0", timing=Timing(settle_seconds=0.05, stall_seconds=20.0)
            )
            return stack.enter_context(SandboxServer(settings=settings, clock=lambda: datetime.now(UTC)))

        yield start


@pytest.fixture
def make_client() -> Callable[..., GatewayClient]:
    def make(url: str, **changes: Any) -> GatewayClient:
        unit = changes.pop("amount_unit", AmountUnit.YUAN)
        settings = GatewaySettings(**{"url": url, "ua": "ACME", "aes_key": Secret(KEY), **changes})
        return GatewayClient(
            settings=settings, amount_unit=unit, pay_types={"baofoo_001"}, clock=lambda: datetime.now(UTC)
        )

    return make


@pytest.fixture
def args() -> Callable[..., SingleWithholdArgs]:
    def make(biz_order_no: str, **changes: Any) -> SingleWithholdArgs:
        good = {
            "biz_order_no": biz_order_no,
            "amount": "10.00",
            "name": "张三",
            "id_card_number": "11010519491231002X",
            "mobile": "13800138000",
            "bank_card_number": "6222021234567890128",
            "pay_type": "baofoo_001",
        }
        return SingleWithholdArgs(**{**good, **changes})

    return make


@pytest.fixture
def self_signed(tmp_path: Path) -> ssl.SSLContext:
    """TLS for 127.0.0.1 with a certificate that no authority has signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(make_certificate(tmp_path))
    return context
