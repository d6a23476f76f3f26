from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import pytest

from service.config.secrets import Secret
from service.sandbox.server import SandboxServer
from service.sandbox.settings import Account, SandboxSettings, Timing
from tests.support.gateway import GatewayCaller
from tests.support.http_server import CallbackListener

KEY = "0123456789abcdef"
ACCOUNT = Account(ua="ACME", aes_key=Secret(KEY), pay_types=frozenset({"baofoo_001"}))
QUICK = Timing(settle_seconds=0.05, stall_seconds=20.0, repeat_after_seconds=(0.05, 0.05, 0.05))


@pytest.fixture
def start_sandbox() -> Iterator[Callable[..., SandboxServer]]:
    with ExitStack() as stack:

        def start(**changes: Any) -> SandboxServer:
            settings = SandboxSettings(**{"accounts": (ACCOUNT,), "bind": "127.0.0.1:0", "timing": QUICK, **changes})
            return stack.enter_context(SandboxServer(settings=settings, clock=lambda: datetime.now(UTC)))

        yield start


@pytest.fixture
def call() -> Callable[[SandboxServer], GatewayCaller]:
    return lambda server: GatewayCaller(url=server.url, ua="ACME", key=KEY)


@pytest.fixture
def listener() -> Iterator[CallbackListener]:
    with CallbackListener() as listening:
        yield listening
