"""Errors of the ledger and of its database."""

from collections.abc import Collection


class LedgerError(Exception):
    """The root of the ledger's errors."""


class LedgerUnavailable(LedgerError):
    """The database cannot be used now: unreachable, full, read-only, shutting down. Keep what you have and try again.

    Nothing was recorded, or its commit was not confirmed; a repeat is safe either way.
    """


class LedgerContended(LedgerUnavailable):
    """Other transactions were in the way (deadlock, lock, serialisation) at every try. Try again later."""


class SchemaOutdated(LedgerUnavailable):
    """The database lacks a table or column of this release. Run `payment-callbacks migrate`."""


class SchemaNewer(LedgerUnavailable):
    """A later release has migrated the database, and there is no downgrade. Run that release, or restore a backup."""


class SchemaForeign(LedgerUnavailable):
    """The schema has tables with the ledger's names that no migration of this release made. Use another schema."""


class SchemaMissing(LedgerUnavailable):
    """PostgreSQL's search_path names no schema that exists. Create it, or correct the database URL."""


class SequenceBehind(LedgerUnavailable):
    """The database generated a row number that is taken: a restore or failover left its sequence behind its table.

    Set it by hand: `SELECT setval(pg_get_serial_sequence('claims', 'id'), (SELECT max(id) FROM claims))`.
    """


class ClaimUnstorable(LedgerError):
    """No database can store this, so a retry cannot help. It belongs in the dead letters, with this reason."""


class UnusableDatabaseUrl(LedgerError):
    """The database URL cannot be used. The message says why, and quotes no secret of it."""


class DriverMissing(UnusableDatabaseUrl):
    """The database URL names PostgreSQL, and its driver is not installed here."""


class UnknownMerchant(LedgerError):
    """No merchant of this name is configured."""


class OrderUnknown(LedgerError):
    """The order was never announced, and no claim about it was recorded."""


class AttentionItemUnknown(LedgerError):
    """Nothing of this id waits for a person: it was settled, or the id has a typing error. List the items again."""


class DeadLetterUnknown(LedgerError):
    """No dead letter has this id: it was settled, or the id has a typing error. List the dead letters again."""


class AnnouncementDiffers(LedgerError):
    """The order was announced before, with other values. Use a new biz_order_no for another payment."""

    def __init__(self, fields: Collection[str]) -> None:
        #: Names of the fields that differ, sorted.
        self.fields = tuple(sorted(fields))
        super().__init__(f"announced before with another {', '.join(self.fields)}")


class CursorExpired(LedgerError):
    """The ledger does not have the event that the cursor names. Start again from the list of orders."""


class FeedBehind(LedgerUnavailable):
    """Events have later transaction numbers than the server, after a restore from a dump. Run `migrate`."""


class OrderChanged(LedgerError):
    """The order has changed since the caller looked at it. Look again, and decide with the present sequence."""

    def __init__(self, sequence: int) -> None:
        #: The number of its last event; 0 where it has none.
        self.sequence = sequence
        super().__init__(f"the order has changed: its sequence is {sequence} now")


class ProposalOpen(LedgerError):
    """A proposal about the order is open. Confirm it or withdraw it before the order is resolved in another way."""

    def __init__(self, proposal: int) -> None:
        #: The id of the proposal.
        self.proposal = proposal
        super().__init__(
            f"proposal {proposal} about the order is open: run `orders confirm` or `orders withdraw` with"
            f" --proposal {proposal} first"
        )


class ProposalUnknown(LedgerError):
    """The order has no proposal with this id. Look at the order again."""


class ProposalClosed(LedgerError):
    """The proposal is not open any more: it is confirmed, withdrawn, or lapsed because the order has changed."""

    def __init__(self, proposal: int, state: str) -> None:
        #: The id of the proposal.
        self.proposal = proposal
        #: What became of it: the value of a ProposalState.
        self.state = state
        super().__init__(f"proposal {proposal} is {state}, and nothing was done: look at the order again")


class SamePerson(LedgerError):
    """The person who made a proposal cannot confirm it. Another person has to."""


class IdentityMissing(LedgerError):
    """Nobody can tell who the caller is, so nothing can be proposed or confirmed. An API token needs its `person`."""


class ReplayCountDiffers(LedgerError):
    """The window has another number of events than the caller expects. Look again, and confirm the present number."""

    def __init__(self, found: int) -> None:
        #: The present number.
        self.found = found
        super().__init__(f"the window has {found} events now")


class NotAnnounced(LedgerError):
    """The order has to be announced first."""
