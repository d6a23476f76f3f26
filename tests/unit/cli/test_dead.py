"""`payment-callbacks dead`, on the embedded queue."""

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli.main import main
from service.messaging.sqlite.queue import EmbeddedQueue, EmbeddedSubscriber
from tests.support.messages import embedded_publisher, make_message

SETTINGS = """\
[merchants.acme]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
"""


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Of a queue in which one message was put aside, whose sender wishes to clear the operator's screen."""
    path = tmp_path / "payment-callbacks.toml"
    path.write_text(SETTINGS)
    (tmp_path / "data").mkdir()
    queue = EmbeddedQueue(path=tmp_path / "data" / "callbacks.sqlite3")
    body = b'{"name": "\x1b[2J",\n "card": "6222021234561234"}' + b"\xff"
    message = replace(make_message("m1"), body=body, headers={"x-why": "\x1b]0;owned\x07"})
    embedded_publisher(queue).publish(message, timeout_seconds=5)
    subscriber = EmbeddedSubscriber(queue=queue)
    (delivery,) = subscriber.receive(max_messages=1, wait_seconds=5)
    subscriber.dead_letter(delivery, reason="MessageUndecodable: \x1b[31mred")
    subscriber.close()
    return path


def dead(settings: Path, *arguments: str) -> str:
    result = CliRunner().invoke(main, ["--config", str(settings), "dead", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_untrusted_text_is_escaped_and_masked(settings: Path) -> None:
    (line,) = dead(settings, "list").splitlines()
    assert line.endswith(r"MessageUndecodable: \x1b[31mred")
    shown = dead(settings, "show", line.split()[0])
    assert r"header:  x-why: \x1b]0;owned\x07" in shown
    assert shown.endswith('{"name": "\\x1b[2J",\n "card": "6222****1234"}\\xff\n')
    assert "\x1b" not in shown


def test_personal_data_is_shown_on_demand(settings: Path) -> None:
    (line,) = dead(settings, "list").splitlines()
    assert "6222021234561234" in dead(settings, "show", line.split()[0], "--unmasked")


def test_drop_without_ids_is_refused_before_it_asks(settings: Path) -> None:
    invoked = CliRunner().invoke(main, ["--config", str(settings), "dead", "drop"])
    assert invoked.exit_code == 2
    assert "name ids, or use --all" in invoked.output
    refused = CliRunner().invoke(main, ["--config", str(settings), "dead", "drop", "--all"], input="n\n")
    assert "Delete 1 messages for good?" in refused.output
    assert len(dead(settings, "list").splitlines()) == 1
    assert dead(settings, "drop", "--all", "--yes") == "dropped: 1\n"
