"""The gateway: the sandbox, with orders that outlive a kill. `python -m tests.chaos.gateway JOURNAL PORT`.

The journal has a line for each withhold that reached it. It is written before the answer, and read at the next start.
"""

import json
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.config.secrets import Secret
from service.sandbox.orders import OrderBook, OrderTaken, SandboxOrder
from service.sandbox.script import write_script
from service.sandbox.server import SandboxServer
from service.sandbox.settings import Account, SandboxSettings
from tests.chaos.journal import Journal
from tests.chaos.plan import PAY_TYPES, payment_of

UA, AES_KEY = "CHAOS", "key of the chaos"


class KeptBook(OrderBook):
    """Orders that are kept in a journal. Their payment numbers follow from their order numbers."""

    def __init__(self, journal: Path, *, settings: SandboxSettings) -> None:
        super().__init__(timing=settings.timing, max_orders=settings.max_entries)
        self._settings = settings
        self._journal = Journal(journal)
        for line in map(json.loads, journal.read_text(encoding="utf-8").splitlines()):
            self._keep(line)

    def accept(self, *, biz_order_no: str, amount: str, now: datetime, **_: Any) -> SandboxOrder:
        """Make an order, once it is in the journal. Raises OrderTaken if its number exists."""
        script = write_script(biz_order_no, amount, rules=(), settings=self._settings)
        line = {
            "at": now.timestamp(),
            "merchant": "asked",
            "biz_order_no": biz_order_no,
            "pay_order_no": payment_of(biz_order_no),
            "pay_status": script.ending,
            "amount": amount,
        }
        self._journal.write(line)
        with self._lock:
            if (UA, biz_order_no) in self._orders:
                raise OrderTaken
            return self._keep(line)

    def _keep(self, line: Mapping[str, Any]) -> SandboxOrder:
        script = write_script(line["biz_order_no"], line["amount"], rules=(), settings=self._settings)
        accepted_at = datetime.fromtimestamp(line["at"], UTC)
        order = SandboxOrder(
            ua=UA,
            biz_order_no=line["biz_order_no"],
            pay_order_no=line["pay_order_no"],
            pay_type=PAY_TYPES["asked"],
            amount=line["amount"],
            notify_url="",
            script=script,
            accepted_at=accepted_at,
            settles_at=self._settles_at(script, accepted_at),
        )
        return self._orders.setdefault((UA, order.biz_order_no), order)


def main(journal: Path, port: str) -> None:
    """Serve until it is killed."""
    account = Account(ua=UA, aes_key=Secret(AES_KEY), pay_types=frozenset({PAY_TYPES["asked"]}))
    settings = SandboxSettings(accounts=[account], bind=f"127.0.0.1:{port}", max_entries=1_000_000)
    server = SandboxServer(settings=settings, clock=lambda: datetime.now(UTC))
    server.sandbox.book = KeptBook(journal, settings=settings)
    with server:
        threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
