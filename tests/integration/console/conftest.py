"""The console on both databases, with merchants, endpoints and people."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from service.bootstrap.console_role import make_console
from service.bootstrap.ledger import make_ledger_engine, make_store
from service.config.reading import parse_settings
from service.config.settings import Settings
from service.ledger.store import LedgerStore
from service.runtime.metrics.logs import LogMetrics
from service.serving.health import Drain
from tests.support.console import Browser
from tests.support.ledger import dispose

_SETTINGS = """
database_url = "{database_url}"

[console]
public_url = "http://localhost"
session_keys = ["a session key of the console, for tests only"]
time_zone = "Asia/Shanghai"

[console.proxy]
networks = ["192.0.2.0/24"]
groups = {{ staff = ["read"], leads = ["read", "inquire", "operate", "resolve"] }}

[[api.tokens]]
name = "li-lei"
token = "token-of-li-lei-with-32-characters-or-more"
scopes = ["read", "inquire", "operate", "resolve"]
person = "li.lei@example.com"

[[api.tokens]]
name = "han-meimei"
token = "token-of-han-meimei-with-32-characters"
scopes = ["read", "inquire", "operate", "resolve"]
person = "han.meimei@example.com"

[[api.tokens]]
name = "reader"
token = "token-of-a-reader-with-32-characters-or-more"
scopes = ["read"]

[[api.tokens]]
name = "announcer"
token = "token-of-an-announcer-with-32-characters"
scopes = ["announce"]

[merchants.acme]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
required_trust = "capability"
second_person_above = "1000"

[[endpoints]]
name = "shop"
kind = "webhook"
url = "http://127.0.0.1:9/"
secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
"""


@pytest.fixture
def settings(ledger_url: str, tmp_path: Path) -> Settings:
    """One merchant, one endpoint, and four people with tokens."""
    return parse_settings(_SETTINGS.format(database_url=ledger_url), {}, name="test", folder=tmp_path)


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """The ledger behind the console."""
    engine = make_ledger_engine(settings, pool_size=4)
    yield engine
    dispose(engine)


@pytest.fixture
def store(settings: Settings, engine: Engine) -> LedgerStore:
    """The same ledger, to be filled."""
    return make_store(settings, engine)


@pytest.fixture
def open_browser(settings: Settings, engine: Engine) -> Callable[..., Browser]:
    """Opens a browser in which nobody has signed in, on a console of its own, maybe with other settings."""

    def open_one(settings: Settings = settings) -> Browser:
        app = make_console(settings, engine, Drain(), LogMetrics(lost=dict, escaped=int))
        return Browser(app.test_client())

    return open_one


@pytest.fixture
def browser(open_browser: Callable[..., Browser]) -> Browser:
    """The browser of Li Lei, who may do everything."""
    opened = open_browser()
    opened.sign_in("token-of-li-lei-with-32-characters-or-more")
    return opened
