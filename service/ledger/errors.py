"""What can go wrong between us and the ledger's database."""

from collections.abc import Collection


class LedgerError(Exception):
    """The root of this room's errors."""


class LedgerUnavailable(LedgerError):
    """The database cannot be used now: away, full, read-only, shutting down. Hold what you have and try again.

    Nothing was recorded, or its commit was not confirmed; doing the same again is safe either way.
    """


class LedgerContended(LedgerUnavailable):
    """Other transactions stood in the way (deadlock, lock, serialisation) more often than is tried. Try again later."""


class SchemaOutdated(LedgerUnavailable):
    """The database lacks a table or column of this release. Run `payment-callbacks migrate`."""


class SchemaNewer(LedgerUnavailable):
    """A later release has migrated the database, and no release migrates back. Run that one, or restore a backup."""


class SchemaForeign(LedgerUnavailable):
    """Tables of the ledger's names are there, which no migration of this release made. Use another schema."""


class SchemaMissing(LedgerUnavailable):
    """PostgreSQL's search_path names no schema that exists. Create it, or correct the database URL."""


class SequenceBehind(LedgerUnavailable):
    """A number that the database gave a new row is taken: a restore or a failover left its sequence behind its table.

    Set it by hand: `SELECT setval(pg_get_serial_sequence('claims', 'id'), (SELECT max(id) FROM claims))`.
    """


class ClaimUnstorable(LedgerError):
    """No database could ever store this: trying again cannot help. It belongs in the dead letters, with this reason."""


class UnusableDatabaseUrl(LedgerError):
    """The database URL cannot be used. The message says why, and quotes no secret of it."""


class DriverMissing(UnusableDatabaseUrl):
    """The database URL names PostgreSQL, and its driver is not installed here."""


class UnknownMerchant(LedgerError):
    """No merchant of this name is configured."""


class OrderUnknown(LedgerError):
    """The order was neither announced nor spoken of by any claim."""


class AnnouncementDiffers(LedgerError):
    """The order was announced before, with other values. Use a new biz_order_no for another payment."""

    def __init__(self, fields: Collection[str]) -> None:
        #: Names of the fields that differ, sorted.
        self.fields = tuple(sorted(fields))
        super().__init__(f"announced before with another {', '.join(self.fields)}")


class NotAnnounced(LedgerError):
    """The order is not announced, and that has to come first."""


class LeaseLost(LedgerError):
    """Another process has claimed the delivery since, or it was settled or replayed: nothing was changed now."""
