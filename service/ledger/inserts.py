"""Inserts of many rows in one statement, in the dialect of the database at hand."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Row, Table
from sqlalchemy.dialects import postgresql, sqlite


def insert_into(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An insert that knows `on_conflict`: both databases do, in the same words, but SQLAlchemy has one for each."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def insert_new(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    returning: Sequence[Column[Any]],
) -> Sequence[Row[Any]]:
    """Insert those rows that break no unique key; the answer holds `returning` of the rows that got in, unordered.

    RETURNING is what makes SQLAlchemy send one statement for all rows in place of one for each.
    """
    if not rows:
        return []
    statement = insert_into(connection, table).on_conflict_do_nothing().returning(*returning)
    return connection.execute(statement, list(rows)).all()
