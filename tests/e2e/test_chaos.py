"""Random kills and freezes of everything under load, on a small scale; `make chaos` does it on a large one."""

import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.run import Foundation, Size, run_chaos


@pytest.mark.parametrize("foundation", [Foundation.SPOOL, Foundation.EMBEDDED], ids=["servers", "embedded"])
def test_under_random_kills_and_freezes_nothing_is_lost_or_doubled(
    foundation: Foundation, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    servers = {}
    power_cuts = int(os.geteuid() == 0)
    size = Size(callbacks=250, kills=6, freezes=2, replays=0, power_cuts=power_cuts, per_second=60, max_seconds=4.5)
    if foundation is not Foundation.EMBEDDED:
        servers = {name: request.getfixturevalue(f"own_{name}") for name in ("rabbitmq", "postgresql")}
        size = replace(size, kills=10, freezes=3, replays=1)
    print("seed", seed := random.randrange(2**32))
    outcome = run_chaos(folder=tmp_path, foundation=foundation, seed=seed, size=size, **servers)
    assert {fault: count for fault, count in outcome.faults.items() if count} == {}, outcome.report["examples"]
    # It did happen: everything true was taken, something false was sent, and all endpoints got events.
    assert outcome.report["callbacks"] == size.callbacks
    assert outcome.report["taken"] == size.callbacks - outcome.report["tampered"] < size.callbacks
    assert all(outcome.report["events"].values())
    assert 0 < outcome.report["charged"] <= outcome.report["withholds"]
    assert outcome.report["during_restarts"] > 0
