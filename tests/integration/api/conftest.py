"""The internal API on both databases, served over HTTP in this process, with a gateway that a test scripts."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine
from werkzeug.serving import WSGIRequestHandler, make_server

from service.bootstrap.api_role import make_api
from service.bootstrap.ledger import make_ledger_engine
from service.config.reading import parse_settings
from service.config.settings import Settings
from service.runtime.metrics.logs import LogMetrics
from service.sandbox.server import SandboxServer
from service.serving.health import Drain
from tests.support.api import TOKEN, ApiCaller
from tests.support.gateway import AES_KEY
from tests.support.http_server import ScriptedServer
from tests.support.ledger import dispose

_SETTINGS = """
database_url = "{database_url}"

[api]
drain_seconds = 120

[[api.tokens]]
name = "shop"
token = "{token}"
scopes = ["read", "announce", "withhold", "cards", "inquire", "operate", "resolve"]

[[api.tokens]]
name = "till"
token = "another-token-of-32-characters-or-more"
scopes = ["announce", "withhold", "inquire", "read"]

[merchants.acme]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
token_keys = [{{ kid = "k1", key = "the token key of acme, for tests only" }}]
gateway = {{ url = "{gateway_url}", ua = "ACME", aes_key = "{key}", timeout_seconds = {gateway_timeout} }}

[merchants.sand]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
gateway = {{ url = "{sandbox_url}", ua = "ACME", aes_key = "{key}" }}

[merchants.away]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
gateway = {{ url = "http://127.0.0.1:9/", ua = "ACME", aes_key = "{key}" }}

[merchants.wrong]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
gateway = {{ url = "{gateway_url}", ua = "ACME", aes_key = "no AES key" }}

[merchants.mute]
pay_types = ["baofoo_001"]
amount_unit = "fen"
required_trust = "checksum"
"""


@pytest.fixture
def gateway() -> Iterator[ScriptedServer]:
    """The gateway of the merchant acme."""
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def sandbox(start_sandbox: Callable[..., SandboxServer]) -> SandboxServer:
    """The gateway of the merchant sand."""
    return start_sandbox(verification_code="123456")


@pytest.fixture
def gateway_timeout_seconds() -> float:
    """How long acme's gateway may take."""
    return 30.0


@pytest.fixture
def settings(
    ledger_url: str,
    gateway: ScriptedServer,
    gateway_timeout_seconds: float,
    sandbox: SandboxServer,
    tmp_path: Path,
) -> Settings:
    """Merchants at the scripted gateway and at the sandbox, at one that is away, at one that is wrong, and at none."""
    text = _SETTINGS.format(
        database_url=ledger_url,
        token=TOKEN,
        gateway_url=gateway.url,
        gateway_timeout=gateway_timeout_seconds,
        sandbox_url=sandbox.url,
        key=AES_KEY,
    )
    return parse_settings(text, {}, name="test", folder=tmp_path)


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """The ledger behind the API."""
    engine = make_ledger_engine(settings, pool_size=16)
    yield engine
    dispose(engine)


@pytest.fixture
def api_url(settings: Settings, engine: Engine) -> Iterator[str]:
    """Where the API listens."""
    server = make_server(
        "127.0.0.1",
        0,
        make_api(settings, engine, Drain(), LogMetrics(lost=dict, escaped=int)),
        threaded=True,
        request_handler=_QuietHandler,
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def api(api_url: str) -> Iterator[ApiCaller]:
    """The caller "shop"."""
    caller = ApiCaller(url=api_url)
    yield caller
    caller.close()


class _QuietHandler(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:
        pass
