"""Alembic runs this to migrate; the connection, its transaction and its lock come from `service.ledger.schema`."""

from alembic import context

from service.ledger.tables import metadata

attributes = context.config.attributes
context.configure(connection=attributes["connection"], target_metadata=metadata, **attributes["version_options"])
context.run_migrations()
