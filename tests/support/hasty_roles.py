"""The command line with roles that do every second what they do every 15 s, and wait 3 s for PostgreSQL, not 12."""

from functools import partial

from consumers.dead_letters import DeadLetterKeeper
from consumers.maintenance import pruning
from consumers.sampler import Sampler
from service.bootstrap import ledger_role
from service.cli.__main__ import main
from service.ledger.postgresql import LimitedConnection
from service.messaging.sqlite import spool

_HASTY = (
    (ledger_role, "DeadLetterKeeper", partial(DeadLetterKeeper, compare_seconds=1.0)),
    (ledger_role, "REPORT_EVERY_SECONDS", 1.0),
    (ledger_role, "Sampler", partial(Sampler, every_seconds=1.0)),
    (ledger_role, "pruning", partial(pruning, every_seconds=1.0)),
    (spool, "SpoolReporter", partial(spool.SpoolReporter, interval_seconds=1.0)),
)

if __name__ == "__main__":
    LimitedConnection.limit_seconds = 3.0
    for module, name, value in _HASTY:
        assert hasattr(module, name)
        setattr(module, name, value)
    main()
