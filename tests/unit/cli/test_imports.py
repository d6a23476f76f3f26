"""No command and no role imports what it never calls: starting is what tests, probes and rollouts wait for."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.cli.main import main
from service.cli.run import run
from tests.support.waiting import HANGS_AFTER_SECONDS

_FOREIGN_TO_CONSUMERS = {"alembic", "flask", "gunicorn", "opentelemetry", "pika"}
# What takes long to import, or belongs to others.
_HEAVY = (
    "alembic",
    "flask",
    "flask_smorest",
    "gunicorn",
    "marshmallow",
    "opentelemetry",
    "pika",
    "prometheus_client",
    "rich",
    "sqlalchemy",
    "urllib3",
)


def imported_by(code: str) -> set[str]:
    """Which of the heavy libraries a new process has imported after `code`."""
    script = f"{code}\nimport sys\nprint(*[name for name in {_HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=HANGS_AFTER_SECONDS
    )
    return set(done.stdout.splitlines()[-1].split())


def test_help_imports_no_command() -> None:
    help_of_main = "from service.cli.main import main\nmain(['--help'], standalone_mode=False)"
    assert imported_by(help_of_main) == set()


@pytest.mark.parametrize(
    ("role", "modules", "foreign"),
    [
        (
            "receiver",
            ["service.bootstrap.messaging", "service.receiver.server"],
            {"alembic", "flask_smorest", "opentelemetry", "pika", "sqlalchemy", "urllib3"},
        ),
        (
            "ledger",
            ["service.bootstrap.ledger_role", "service.ledger.schema"],
            _FOREIGN_TO_CONSUMERS,
        ),
        ("inquirer", ["service.bootstrap.inquirer_role"], _FOREIGN_TO_CONSUMERS),
        ("dispatcher", ["service.bootstrap.dispatcher_role"], _FOREIGN_TO_CONSUMERS),
        ("api", ["service.bootstrap.api_role", "service.serving.threads"], {"alembic", "opentelemetry", "pika"}),
    ],
)
def test_a_role_imports_nothing_that_only_other_roles_use(role: str, modules: list[str], foreign: set[str]) -> None:
    code = "import service.cli.run\n" + "\n".join(f"import {module}" for module in modules)
    assert imported_by(code) & foreign == set(), role


def test_the_urls_of_the_settings_are_checked_without_sqlalchemy(tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(
        'database_url = "postgresql://db/payments"\n[broker]\nurls = ["amqp://mq/"]\n'
        '[merchants.acme]\npay_types = ["baofoo_001"]\namount_unit = "yuan"\n'
    )
    words = ["--config", str(settings), "config", "check"]
    check = f"from service.cli.main import main\nmain({words!r}, standalone_mode=False)"
    assert imported_by(check) == {"marshmallow", "pika"}


@pytest.mark.parametrize("group", [main, run], ids=["main", "run"])
def test_every_listed_command_can_be_imported_and_has_a_help_text(group: Any) -> None:
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        assert command is not None, name
        assert command.name == name
        assert command.help, name
