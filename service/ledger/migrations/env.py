"""Alembic runs this to migrate; the connection, its transaction and its lock come from `service.ledger.schema`."""

from alembic import context

from service.ledger.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
