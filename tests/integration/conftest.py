"""Servers of other people, over TLS."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.http_server import ScriptedServer, make_certificate


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For 127.0.0.1, with its key; nobody vouches for it."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def secure(certificate: Path) -> Iterator[ScriptedServer]:
    """A server with that certificate."""
    with ScriptedServer(certificate=certificate) as made:
        yield made
