"""An inquirer that is frozen at the worst moment: `python -m tests.support.freezing_inquirer SETTINGS`.

Runs the role as the command line does, and sends itself SIGSTOP once, when its first lease is committed and not one of
its questions has been sent.
"""

import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry

from consumers.signals import stop_on_signals
from service.bootstrap.gateways import make_gateway_clients
from service.bootstrap.inquirer_role import inquirer_pool_size, make_inquirer
from service.bootstrap.ledger import make_ledger_engine
from service.config.reading import load_settings
from service.ledger.inquiry_queue import InquiryQueue
from service.ledger.questions import DueInquiry


def main(settings_file: str) -> None:
    """Lease, freeze, and go on when thawed."""
    settings = load_settings(Path(settings_file), {})
    stop = threading.Event()
    stop_on_signals(stop)
    _freeze_after_first_lease()
    engine = make_ledger_engine(settings, pool_size=inquirer_pool_size(settings))
    gateways = make_gateway_clients(settings)
    make_inquirer(settings, engine, CollectorRegistry(), gateways).run(stop)


def _freeze_after_first_lease() -> None:
    lease_due = InquiryQueue.lease_due
    frozen = threading.Event()

    def lease_and_freeze(
        queue: InquiryQueue, merchant: str, *, limit: int, lease_seconds: float
    ) -> Sequence[DueInquiry]:
        leased = lease_due(queue, merchant, limit=limit, lease_seconds=lease_seconds)
        if leased and not frozen.is_set():
            frozen.set()
            # To this very thread: sent to the process, another thread may take it, and this one run on for a moment.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        return leased

    InquiryQueue.lease_due = lease_and_freeze


if __name__ == "__main__":
    main(*sys.argv[1:])
