"""`payment-callbacks orders confirm` and `withdraw`, on the embedded ledger."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.cli.main import main

_SETTINGS = """\
[merchants.acme]
pay_types = ["bank"]
amount_unit = "yuan"
required_trust = "checksum"
second_person_above = "100.00"
"""
SEEN = ("--by", "Li", "--reason", "seen on the statement")

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command on a ledger that knows the order DK1."""
    file = tmp_path / "pc.toml"
    file.write_text(_SETTINGS)

    def run(*arguments: str, answer: str = "y\n") -> Result:
        return CliRunner().invoke(main, ["--config", str(file), *arguments], input=answer)

    assert run("orders", "announce", "acme", "DK1", "--amount", "100.01").exit_code == 0
    return run


def words(result: Result) -> str:
    return " ".join(result.output.split())


def test_a_proposal_names_the_command_with_which_another_person_confirms_it(run: Run) -> None:
    proposed = run("orders", "resolve", "acme", "DK1", "succeeded", *SEEN, "--yes")
    assert (proposed.exit_code, proposed.stdout.splitlines()) == (
        0,
        [
            "Proposal 1: the order has not changed yet. Another person has to run:",
            "payment-callbacks orders confirm --proposal 1 acme DK1",
        ],
    )
    assert "Li (command line)" in words(run("orders", "show", "acme", "DK1"))
    command = shlex.split(proposed.stdout.splitlines()[1])[1:]
    refused = run(*command, "--by", "Li")
    assert (refused.exit_code, "Li has made proposal 1: another person has to" in words(refused)) == (1, True)
    confirmed = run(*command, "--by", "Wang")
    assert confirmed.exit_code == 0
    assert "seen on the statement" in words(confirmed)  # it shows what is confirmed, and asks
    assert "applied: the order is succeeded, confirmed by Wang (command line)" in confirmed.output
    assert "Li (command line), confirmed by Wang (command line)" in words(run("orders", "show", "acme", "DK1"))


def test_who_does_not_agree_changes_nothing_and_withdraws_it_with_a_reason(run: Run) -> None:
    shown = json.loads(run("orders", "resolve", "acme", "DK1", "failed", *SEEN, "--yes", "--json").stdout)
    assert (shown["verdict"], shown["proposal"]["state"], shown["order"]["status"]) == (None, "open", "initial")
    assert run("orders", "confirm", "acme", "DK1", "--proposal", "1", "--by", "Wang", answer="n\n").exit_code == 1
    again = run("orders", "resolve", "acme", "DK1", "failed", *SEEN, "--yes")
    assert (again.exit_code, "proposal 1 about the order is open: run `orders confirm`" in words(again)) == (1, True)
    withdrawn = run("orders", "withdraw", "acme", "DK1", "--proposal", "1", "--by", "Wang", "--reason", "another order")
    assert withdrawn.stdout == "Proposal 1 is withdrawn, by Wang (command line)\n"
    [proposal] = json.loads(run("orders", "show", "acme", "DK1", "--json").stdout)["proposals"]
    assert (proposal["state"], proposal["decision_reason"]) == ("withdrawn", "another order")
    closed = run("orders", "confirm", "acme", "DK1", "--proposal", "1", "--by", "Wang", "--yes")
    assert (closed.exit_code, "proposal 1 is withdrawn, and nothing was done" in words(closed)) == (1, True)
