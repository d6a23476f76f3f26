"""`payment-callbacks spool drain`, against a spool that nobody empties."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.cli.main import main
from service.messaging.interface import Message
from service.messaging.sqlite.queue import EmbeddedQueue
from tests.support.messages import embedded_publisher

SETTINGS = """\
[broker]
urls = ["amqp://guest:guest@127.0.0.1:1/"]
[spool]
enabled = true
[merchants.acme]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
"""
MESSAGE = Message(exchange="payment.callbacks", routing_key="acme", body=b"{}", message_id="1", type="test")


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "payment-callbacks.toml"
    path.write_text(SETTINGS)
    return path


def drain(settings: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["--config", str(settings), "spool", "drain", *options])


def test_a_spool_that_was_never_used_is_empty(settings: Path) -> None:
    result = drain(settings, "--within", "10")
    assert (result.exit_code, result.output) == (0, "The spool is empty.\n")
    assert not (settings.parent / "data" / "spool.sqlite3").exists()


def test_callbacks_that_are_not_forwarded_are_counted_and_kept(settings: Path) -> None:
    (settings.parent / "data").mkdir()
    queue = EmbeddedQueue(path=settings.parent / "data" / "spool.sqlite3")
    embedded_publisher(queue).publish(MESSAGE, timeout_seconds=5)
    result = drain(settings, "--within", "0")
    assert result.exit_code == 1
    assert "1 callbacks are still in" in result.output
    assert queue.depth().messages == 1
    queue.close(timeout_seconds=5)
