"""`payment-callbacks prune`: what it refuses. What it removes is tested with the ledger."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli.main import main

_SETTINGS = """\
[merchants.acme]
pay_types = ["bank"]
amount_unit = "yuan"
required_trust = "checksum"
"""
_AHEAD = f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%d}"


@pytest.mark.parametrize(
    "options",
    [(), ("--before", _AHEAD), ("--keep-days", "0"), ("--keep-days", "1", "--before", "2026-01-01")],
    ids=["neither option", "a day in the future", "no day kept", "both options"],
)
def test_a_time_that_cannot_be_meant_is_a_mistake_in_usage(tmp_path: Path, options: tuple[str, ...]) -> None:
    file = tmp_path / "payment-callbacks.toml"
    file.write_text(_SETTINGS)
    assert CliRunner().invoke(main, ["--config", str(file), "prune", *options]).exit_code == 2
