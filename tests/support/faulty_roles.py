"""Roles that fail at the worst moment: `python -m tests.support.faulty_roles`.

- `ledger URL STATEMENT [pooled]` records one pending callback, and sends itself SIGKILL just after the first statement
  that begins with STATEMENT.
- `inquirer SETTINGS LEASE_SECONDS` runs the role as the command line does, and sends itself SIGSTOP once, when its
  first lease, which holds for LEASE_SECONDS, is committed and not one of its questions has been sent.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from sqlalchemy import event

from consumers import inquirer
from consumers.signals import stop_on_signals
from consumers.threads import Leased, lease_jobs
from service.bootstrap.gateways import make_gateway_clients
from service.bootstrap.inquirer_role import inquirer_pool_size, make_inquirer
from service.bootstrap.ledger import make_ledger_engine
from service.config.reading import load_settings
from service.domain.claims import OrderStatus
from service.ledger.database import make_engine
from service.ledger.inquiry_questions import DueInquiry
from tests.support.claims import a_claim
from tests.support.ledger import make_store


def run_ledger_until_killed(url: str, beginning: str, pooled: str = "") -> None:
    engine = make_engine(url, pooled=bool(pooled))

    def die(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(beginning):
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(engine, "after_cursor_execute", die)
    store = make_store(engine, clock=lambda: datetime.now(UTC))
    store.record([a_claim(OrderStatus.PROCESSING)])


def run_inquirer_until_frozen(settings_file: str, lease_seconds: str) -> None:
    settings = load_settings(Path(settings_file), {})
    stop = threading.Event()
    stop_on_signals(stop)
    _freeze_after_first_lease(float(lease_seconds))
    engine = make_ledger_engine(settings, pool_size=inquirer_pool_size(settings))
    gateways = make_gateway_clients(settings)
    make_inquirer(settings, engine, CollectorRegistry(), gateways).run(stop)


def _freeze_after_first_lease(first_lease_seconds: float) -> None:
    frozen = threading.Event()

    def lease_and_freeze(
        lease: Callable[..., Sequence[DueInquiry]], *, lease_seconds: float
    ) -> Sequence[Leased[DueInquiry]]:
        if frozen.is_set():
            return lease_jobs(lease, lease_seconds=lease_seconds)
        leased = lease_jobs(lease, lease_seconds=first_lease_seconds)
        if leased:
            frozen.set()
            # To this very thread: sent to the process, another thread may take it, and this one run on for a moment.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        return leased

    setattr(inquirer, "lease_jobs", lease_and_freeze)  # noqa: B010 - for mypy


def main() -> None:
    match sys.argv[1:]:
        case ["ledger", *arguments]:
            run_ledger_until_killed(*arguments)
        case ["inquirer", *arguments]:
            run_inquirer_until_frozen(*arguments)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
