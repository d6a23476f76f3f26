"""A ledger that is killed within a transaction: `python -m tests.support.dying_ledger URL STATEMENT [pooled]`.

Records one pending callback, and sends itself SIGKILL just after the first statement that begins with STATEMENT.
"""

import os
import signal
import sys
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import event

from service.domain.claims import OrderStatus, Trust
from service.domain.events import DEFAULT_EVENT_TYPES
from service.ledger.decisions import EndpointRules, MerchantRules
from service.ledger.engine import make_engine
from service.ledger.store import LedgerStore
from tests.support.claims import a_claim


def main(url: str, beginning: str, pooled: str = "") -> None:
    """Record, and die."""
    engine = make_engine(url, pooled=bool(pooled))

    def die(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(beginning):
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(engine, "after_cursor_execute", die)
    store = LedgerStore(
        engine=engine,
        rules={
            "acme": MerchantRules(
                required_trust=Trust.CAPABILITY,
                can_ask=True,
                answer_due_seconds=600,
                inquiry_horizon_seconds=86_400,
            )
        },
        endpoints=[EndpointRules(name="books", types=DEFAULT_EVENT_TYPES)],
        clock=lambda: datetime.now(UTC),
    )
    store.record([a_claim(OrderStatus.PROCESSING)])


if __name__ == "__main__":
    main(*sys.argv[1:])
