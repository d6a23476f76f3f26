"""Statements about many rows at once, in the dialect of the database at hand.

PostgreSQL gets all rows as one JSON parameter: a statement of one text, however many rows, is parsed and planned once,
and `json` writes the batch in C, where psycopg writes an array of strings element by element. SQLite has no server to
parse for it: there a parameter for each value is quicker, and only the keys that are looked for come as JSON.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Index,
    LargeBinary,
    Row,
    Table,
    Text,
    bindparam,
    cast,
    func,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects import sqlite

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

#: Execution option of a statement whose plan is never kept. PostgreSQL keeps the plan of a statement that is executed
#: often: one made while a table was small may read all of it for each key, and does so for as long as it is kept.
PLANNED_ANEW = "ledger_planned_anew"

_Row = Mapping[str, Any]
_Rows = Sequence[_Row]
_NOTHING: _Row = {}
_Insert: TypeAlias = "postgresql.Insert | sqlite.Insert"

# The parameter that holds all rows, as an array of arrays.
_ROWS = "rows"


def insert_into(connection: Connection, table: Table) -> _Insert:
    """An insert that knows `on_conflict`: both databases do, in the same words, but SQLAlchemy has one for each."""
    return _insert_into(connection.dialect.name, table)


def insert_new(
    connection: Connection,
    table: Table,
    rows: _Rows,
    *,
    same: _Row = _NOTHING,
    unique: Index | None = None,
    returning: Sequence[Column[Any]] = (),
) -> Sequence[Row[Any]]:
    """Insert, in their order, those rows that `unique` (else the primary key) does not hold; `returning` of each.

    All rows have the same columns, besides those that are the `same` in all. What is returned has no order. A row that
    breaks another key is an error: passing it over would take for a repeat what merely got a number that is taken.
    """
    if not rows:
        return []
    statement = _insert_new(connection.dialect.name, table, tuple(rows[0]), tuple(same), unique, tuple(returning))
    result = execute_rows(connection, statement, rows, same=same)
    return result.all() if returning else []


def insert_or_update(
    connection: Connection, table: Table, rows: _Rows, *, unchanged: Collection[str] = (), growing: str | None = None
) -> None:
    """Insert rows, or overwrite those with the same primary key, all but the columns named in `unchanged`.

    Where `growing` names a column, a row is overwritten only by one that has more in it. No two rows have one key.
    """
    if rows:
        names = tuple(rows[0])
        statement = _insert_or_update(connection.dialect.name, table, names, frozenset(unchanged), growing)
        execute_rows(connection, statement, rows)


def insert_rows(dialect: str, table: Table, names: Sequence[str], same: Sequence[str] = ()) -> _Insert:
    """An insert of these columns for `execute_rows`. Keep it: making it anew costs more than executing it."""
    insert = _insert_into(dialect, table)
    if dialect == "sqlite":
        return insert.values({name: bindparam(name) for name in (*names, *same)})
    item = _items()
    values = [_from_json(item, place, table.c[name]) for place, name in enumerate(names)]
    constants = [cast(bindparam(name, type_=table.c[name].type), table.c[name].type) for name in same]
    return insert.from_select([*names, *same], select(*values, *constants))


def execute_rows(connection: Connection, statement: _Insert, rows: _Rows, *, same: _Row = _NOTHING) -> Any:
    """Execute what `insert_rows` made; each row has the columns that it was made for, in the same order."""
    if connection.dialect.name == "sqlite":
        return connection.execute(statement, [{**row, **same} for row in rows])
    return connection.execute(statement, {_ROWS: _to_json(row.values() for row in rows), **same})


def keys_given(dialect: str, columns: Sequence[Column[Any]]) -> ColumnElement[bool]:
    """Whether the text `columns` of a row are one of the keys that the statement is executed with (`given_keys`)."""
    places = range(len(columns))
    if dialect == "sqlite":
        key = func.json_each(bindparam(_ROWS, type_=Text)).table_valued("value").c.value
        texts: list[ColumnElement[Any]] = [func.json_extract(key, text(f"'$[{place}]'")) for place in places]
    else:
        item = _items()
        texts = [_text_at(item, place) for place in places]
    return tuple_(*columns).in_(select(*texts))


def given_keys(keys: Iterable[Sequence[str]]) -> Mapping[str, Any]:
    """The parameter of a statement with `keys_given`."""
    return {_ROWS: _to_json(keys)}


def _insert_into(dialect: str, table: Table) -> _Insert:
    if dialect == "sqlite":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # a tenth of a second, which the embedded ledger need not wait

    return postgresql.insert(table)


# Tables, columns and indexes are compared by identity here, and there are few of each.
@cache
def _insert_new(
    dialect: str,
    table: Table,
    names: Sequence[str],
    same: Sequence[str],
    unique: Index | None,
    returning: Sequence[Column[Any]],
) -> Any:
    insert = insert_rows(dialect, table, names, same)
    if unique is None:
        once = insert.on_conflict_do_nothing(index_elements=list(table.primary_key))
    else:
        where = unique.dialect_options[dialect]["where"]
        once = insert.on_conflict_do_nothing(index_elements=list(unique.columns), index_where=where)
    return once.returning(*returning) if returning else once


@cache
def _insert_or_update(
    dialect: str, table: Table, names: Sequence[str], unchanged: frozenset[str], growing: str | None
) -> Any:
    insert = insert_rows(dialect, table, names)
    key = [column.name for column in table.primary_key]
    changing = [name for name in names if name not in key and name not in unchanged]
    return insert.on_conflict_do_update(
        index_elements=key,
        set_={name: insert.excluded[name] for name in changing},
        where=None if growing is None else table.c[growing] < insert.excluded[growing],
    )


def _items() -> ColumnElement[Any]:
    """PostgreSQL's: each row that the statement is executed with, as a JSON array."""
    from sqlalchemy.dialects.postgresql import JSONB

    return func.jsonb_array_elements(cast(bindparam(_ROWS, type_=Text), JSONB)).column_valued("item")


def _from_json(item: ColumnElement[Any], place: int, column: Column[Any]) -> ColumnElement[Any]:
    value = _text_at(item, place)
    return func.convert_to(value, "UTF8") if isinstance(column.type, LargeBinary) else cast(value, column.type)


def _text_at(item: ColumnElement[Any], place: int) -> ColumnElement[Any]:
    return item.op("->>")(text(str(place)))


def _to_json(rows: Iterable[Iterable[object]]) -> str:
    return _JSON.encode([list(row) for row in rows])


def _to_text(value: datetime | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else _time_text(value)


@lru_cache(maxsize=16)  # most times of a batch are the one at which it is recorded
def _time_text(time: datetime) -> str:
    if time.tzinfo is None:
        raise TypeError(f"a time without a zone: {time.isoformat()}")
    return time.isoformat()


_JSON = json.JSONEncoder(ensure_ascii=False, check_circular=False, default=_to_text)
