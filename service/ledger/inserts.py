"""Inserts of many rows in one statement, in the dialect of the database at hand."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ARRAY, Column, Connection, Index, Row, Table, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite

_Rows = Sequence[Mapping[str, Any]]


def insert_into(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An insert that knows `on_conflict`: both databases do, in the same words, but SQLAlchemy has one for each."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def insert_new(
    connection: Connection,
    table: Table,
    rows: _Rows,
    *,
    unique: Index | None = None,
    returning: Sequence[Column[Any]] = (),
) -> Sequence[Row[Any]]:
    """Insert, in their order, those rows that `unique` (else the primary key) does not hold; `returning` of each.

    All rows have the same columns. What is returned has no order. A row that breaks another key is an error: passing it
    over would take for a repeat what merely got a number that is taken.
    """
    if not rows:
        return []
    statement, parameters = _insert(connection, table, rows)
    if unique is None:
        once = statement.on_conflict_do_nothing(index_elements=list(table.primary_key))
    else:
        where = unique.dialect_options[connection.dialect.name]["where"]
        once = statement.on_conflict_do_nothing(index_elements=list(unique.columns), index_where=where)
    return connection.execute(once.returning(*returning or table.primary_key), parameters).all()


def insert_or_update(
    connection: Connection, table: Table, rows: _Rows, *, unchanged: Collection[str] = (), growing: str | None = None
) -> None:
    """Insert rows, or overwrite those with the same primary key, all but the columns named in `unchanged`.

    Where `growing` names a column, a row is overwritten only by one that has more in it. No two rows have one key.
    """
    if not rows:
        return
    statement, parameters = _insert(connection, table, rows)
    key = [column.name for column in table.primary_key]
    changing = [name for name in rows[0] if name not in key and name not in unchanged]
    statement = statement.on_conflict_do_update(
        index_elements=key,
        set_={name: statement.excluded[name] for name in changing},
        where=None if growing is None else table.c[growing] < statement.excluded[growing],
    )
    connection.execute(statement.returning(*table.primary_key), parameters).all()


def _insert(connection: Connection, table: Table, rows: _Rows) -> tuple[postgresql.Insert | sqlite.Insert, Any]:
    insert = insert_into(connection, table)
    if isinstance(insert, sqlite.Insert):
        # RETURNING is what makes SQLAlchemy send one statement for all rows in place of one for each.
        return insert, list(rows)
    # One array per column: a statement of one text, however many rows, is parsed and planned once. As VALUES, a batch
    # of 100 claims has 2,300 parameters and takes five times as long.
    names = list(rows[0])
    arrays = [bindparam(f"{name}_array", type_=ARRAY(table.c[name].type)) for name in names]
    source = func.unnest(*arrays).table_valued(*names).render_derived()
    parameters = {f"{name}_array": [row[name] for row in rows] for name in names}
    return insert.from_select(names, select(*source.c)), parameters
