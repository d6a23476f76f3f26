"""The API without a database."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.api.health import Drain
from service.bootstrap.api import make_api
from service.bootstrap.ledger import make_ledger_engine
from service.config.reading import parse_settings
from service.runtime.metrics.logs import LogMetrics

TOKEN = "a-token-of-the-shop-for-tests-only"
READER = "a-token-of-the-till-for-tests-only"
_SETTINGS = f"""
[[api.tokens]]
name = "shop"
token = "{TOKEN}"
scopes = ["read", "announce", "withhold", "cards", "inquire", "resolve"]

[[api.tokens]]
name = "till"
token = "{READER}"
scopes = ["read"]

[merchants.acme]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
"""


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    """The application; its ledger was never made."""
    settings = parse_settings(_SETTINGS, {}, name="test", folder=tmp_path)
    engine = make_ledger_engine(settings)
    yield make_api(settings, engine, Drain(), LogMetrics(lost=lambda: {"full": 3}, escaped=lambda: 1))
    engine.dispose()


@pytest.fixture
def anonymous(app: Flask) -> FlaskClient:
    """A client without a token."""
    return app.test_client()


@pytest.fixture
def shop(app: Flask) -> FlaskClient:
    """A client with a token."""
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {TOKEN}"
    return client


@pytest.fixture
def till(app: Flask) -> FlaskClient:
    """A client whose token may read and do nothing else."""
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {READER}"
    return client
