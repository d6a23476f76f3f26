"""The command line with roles that wait 3 s for PostgreSQL's answer, in place of 12, for tests in which it freezes."""

from service.cli.__main__ import main
from service.ledger.postgresql import LimitedConnection

if __name__ == "__main__":
    LimitedConnection.limit_seconds = 3.0
    main()
