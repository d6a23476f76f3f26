"""`payment-callbacks dead`, on the embedded queue and ledger."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine

from consumers.dead_letters import DeadLetterKeeper
from service.bootstrap.ledger import make_ledger_engine
from service.cli.main import main
from service.config.reading import load_settings
from service.ledger.audit import list_changes
from service.ledger.dead_letters import DeadLetterStore
from service.ledger.schema import migrate
from service.messaging.sqlite.dead_letters import EmbeddedDeadLetters
from service.messaging.sqlite.queue import EmbeddedQueue, EmbeddedSubscriber
from service.runtime.clock import now
from tests.support.messages import embedded_publisher, make_message

SETTINGS = """\
[merchants.acme]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
"""
BY_LI = ("--by", "Li", "--reason", "the cause is mended")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "payment-callbacks.toml"
    path.write_text(SETTINGS)
    (tmp_path / "data").mkdir()
    return path


@pytest.fixture
def queue(path: Path) -> Iterator[EmbeddedQueue]:
    """In it, one message was put aside, whose sender wishes to clear the operator's screen."""
    queue = EmbeddedQueue(path=path.parent / "data" / "callbacks.sqlite3")
    body = b'{"name": "\x1b[2J",\n "card": "6222021234561234"}' + b"\xff"
    embedded_publisher(queue).publish(replace(make_message("m1"), body=body), timeout_seconds=5)
    subscriber = EmbeddedSubscriber(queue=queue)
    (delivery,) = subscriber.receive(max_messages=1, wait_seconds=5)
    subscriber.dead_letter(delivery, reason="MessageUndecodable: \x1b[31mred")
    yield queue
    queue.close(timeout_seconds=5)


@pytest.fixture
def engine(path: Path, queue: EmbeddedQueue) -> Iterator[Engine]:
    """The ledger, which knows of the message."""
    engine = make_ledger_engine(load_settings(path, {}))
    migrate(engine)
    make_keeper(queue, engine).keep()
    yield engine
    engine.dispose()


@pytest.fixture
def ledger_role(queue: EmbeddedQueue, engine: Engine) -> Iterator[None]:
    """Carries out what is requested."""
    with make_keeper(queue, engine).running():
        yield


def make_keeper(queue: EmbeddedQueue, engine: Engine) -> DeadLetterKeeper:
    return DeadLetterKeeper(
        letters=EmbeddedDeadLetters(queue=queue),
        count=queue.count_messages,
        store=DeadLetterStore(engine=engine),
        clock=now,
    )


def run(path: Path, *arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(main, ["--config", str(path), "dead", *arguments], input=answer)


def test_untrusted_text_is_escaped_and_masked(path: Path, engine: Engine) -> None:
    (line,) = run(path, "list").stdout.splitlines()
    assert line.startswith("m1  ")
    assert line.endswith(r"MessageUndecodable: \x1b[31mred")
    shown = run(path, "show", "m1").stdout
    assert r"reason:    MessageUndecodable: \x1b[31mred" in shown
    assert shown.endswith('{"name": "\\x1b[2J",\n "card": "6222****1234"}\\xff\n')
    assert "\x1b" not in shown


def test_a_replay_is_carried_out_by_the_ledger_role_and_audited(
    path: Path, queue: EmbeddedQueue, engine: Engine, ledger_role: None
) -> None:
    done = run(path, "replay", "m1", *BY_LI)
    assert (done.exit_code, done.stdout) == (0, "replayed: 1\n")
    assert queue.depth().messages == 1
    assert run(path, "list").stdout == ""
    shown = run(path, "show", "m1").stdout
    assert "requested: replay requested by Li (command line): the cause is mended\n" in shown
    assert ", replayed\n" in shown
    (change,) = list_changes(engine, limit=10)
    assert (change.action, change.changed_by, change.subject) == ("replay-dead-letters", "Li (command line)", "m1")


def test_a_drop_is_confirmed_first(path: Path, queue: EmbeddedQueue, engine: Engine, ledger_role: None) -> None:
    refused = run(path, "drop", "--all", *BY_LI, answer="n\n")
    assert "Delete 1 messages for good?" in refused.output
    assert len(run(path, "list").stdout.splitlines()) == 1
    assert run(path, "drop", "--all", "--yes", *BY_LI).stdout == "dropped: 1\n"
    assert (queue.depth().messages, queue.count_messages()["dead"]) == (0, 0)
    again = run(path, "drop", "--all", "--yes", *BY_LI)
    assert (again.exit_code, again.stdout) == (0, "there are no dead letters\n")


def test_without_a_ledger_role_the_request_stays_and_the_command_says_where_to_look(path: Path, engine: Engine) -> None:
    done = run(path, "replay", "m1", *BY_LI, "--wait", "0")
    assert done.exit_code == 0
    assert "requested: 1. The ledger role has not done it yet" in done.stdout
    assert "`payment-callbacks dead show m1`" in done.stdout
    assert run(path, "list").stdout.endswith("(replay requested by Li (command line))\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["drop", *BY_LI], "name ids, or use --all"),
        (["replay", "m1", "--all", *BY_LI], "name ids, or use --all"),
        (["replay", "m1"], "--reason must say why"),
        (["replay", "m1", "--reason", " "], "--reason must say why"),
        (["replay", "m1", "--reason", "r", "--by", " "], "the name of a person must not be empty"),
        (["replay", "m1", *BY_LI, "--wait", "-1"], "-1 is not in the range"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_requested(
    path: Path, engine: Engine, arguments: list[str], said: str
) -> None:
    refused = run(path, *arguments)
    assert (refused.exit_code, said in refused.stderr) == (2, True)
    assert "requested" not in run(path, "list").stdout


@pytest.mark.parametrize("command", [("show", "m404"), ("replay", "m1", "m404", *BY_LI)])
def test_an_unknown_id_is_named_and_nothing_is_requested(path: Path, engine: Engine, command: tuple[str, ...]) -> None:
    refused = run(path, *command)
    assert refused.exit_code == 1
    assert "no dead letter has the id m404; `payment-callbacks dead list` lists them" in refused.stderr
    assert "requested" not in run(path, "list").stdout
