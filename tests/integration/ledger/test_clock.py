"""The clock that all processes of a ledger share."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from service.ledger import database
from service.ledger.database import make_engine, shared_time
from tests.support.postgresql import Database
from tests.support.waiting import eventually


def test_time_passes_while_a_transaction_waits(ledger_engine: Engine) -> None:
    with ledger_engine.begin() as connection:
        began = shared_time(connection)
        assert began.utcoffset() == timedelta()
        eventually(lambda: shared_time(connection) > began)


def test_a_host_whose_own_clock_is_wrong_goes_by_postgresqls(
    postgresql: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(postgresql.url)
    with engine.connect() as connection:
        right = shared_time(connection)
        monkeypatch.setattr(database, "now", lambda: right + timedelta(hours=1))
        assert shared_time(connection) < right + timedelta(hours=1)
    engine.dispose()
