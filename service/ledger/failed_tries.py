"""The failed tries of a delivery, as they are kept beside it: when each failed, and why."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

# The first one, and the newest. An endpoint that is away for days would fill the ledger otherwise.
_KEPT = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedTry:
    """A try that an endpoint did not take."""

    #: When it was over, aware.
    at: datetime
    error: str


def add_failed_try(kept: str, *, at: datetime, error: str) -> str:
    """The text to keep after another try has failed; `kept` is what was kept before, "" at first."""
    tries = [*(json.loads(kept) if kept else ()), [at.isoformat(), error]]
    return json.dumps([*tries[:1], *tries[1:][-(_KEPT - 1) :]], ensure_ascii=False)


def read_failed_tries(kept: str) -> Sequence[FailedTry]:
    """Those that are kept, the oldest first: the first one and at most nine others, the newest."""
    tries = json.loads(kept) if kept else ()
    return tuple(FailedTry(at=datetime.fromisoformat(at), error=error) for at, error in tries)
