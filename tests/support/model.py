"""What the models of the ledger share: an emptied ledger for each run, and calls that a crash ends at any step.

A model is a plain description of what the ledger has to do. hypothesis calls both with the same random steps, and
compares them after each.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from sqlalchemy import delete, event

from service.ledger.database import make_engine
from service.ledger.tables import metadata

Result = TypeVar("Result")

#: The most statements that one call is interrupted before; calls that need fewer end normally.
_MAX_STEPS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What becomes of a process while it calls the ledger."""

    #: It dies before this statement or commit (1, 2, 3 ...), or right after the call where that has fewer.
    dies_at: int | None = None
    #: It never hears of the commit, so it makes the same call again.
    repeats: bool = False

    @property
    def lives(self) -> bool:
        """Whether the process survives the call."""
        return self.dies_at is None


#: Nothing happens to the process.
LIVES = Fate()
#: Any fate; hypothesis tries simpler ones first.
fates = st.one_of(
    *[st.just(LIVES)] * 4,
    st.just(Fate(repeats=True)),
    st.integers(1, _MAX_STEPS).map(lambda step: Fate(dies_at=step)),
)


class _Died(Exception):
    """The process died. What its open transaction has done is rolled back, as the database does."""


class ModelLedger:
    """A ledger in a SQLite file that many runs use, one after the other; close it."""

    def __init__(self, url: str) -> None:
        self.engine = make_engine(url)
        self._steps_left: int | None = None
        event.listen(self.engine, "connect", _without_fsync)
        event.listen(self.engine, "before_cursor_execute", self._step)
        event.listen(self.engine, "commit", self._step)

    def close(self) -> None:
        """Close its connections."""
        self.engine.dispose()

    def empty(self) -> None:
        """Remove all rows."""
        with self.engine.begin() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(delete(table))

    def call(self, work: Callable[[], Result], fate: Fate) -> list[Result]:
        """Do `work` as a process of this fate does; the results of the calls that were committed."""
        self._steps_left = fate.dies_at
        try:
            results = [work()]
        except _Died:
            results = []
        finally:
            self._steps_left = None
        return [*results, work()] if fate.repeats else results

    def _step(self, *_: Any) -> None:
        if self._steps_left is not None:
            self._steps_left -= 1
            if not self._steps_left:
                raise _Died


def _without_fsync(connection: Any, _record: object) -> None:
    # The processes of a model die, and never the machine.
    connection.execute("PRAGMA synchronous = OFF")


def run_model(model: Callable[[ModelLedger], RuleBasedStateMachine], *, url: str, runs: int, steps: int) -> None:
    """Run a model so often, so many steps each time; MODEL_RUNS sets another number of runs.

    `url` names an empty ledger with the schema of this release.
    """
    ledger = ModelLedger(url)
    chosen = settings(max_examples=int(os.environ.get("MODEL_RUNS", runs)), stateful_step_count=steps)
    try:
        # Any function that makes a machine will do, although the type says otherwise.
        run_state_machine_as_test(lambda: model(ledger), settings=chosen)  # type: ignore[arg-type]
    finally:
        ledger.close()
