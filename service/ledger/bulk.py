"""Statements about many rows at once, in the dialect of the database at hand.

PostgreSQL gets all rows as one JSON parameter. The text of such a statement does not depend on the number of rows, so
it is compiled, parsed and planned once, and `json` writes the batch in C, where psycopg writes an array of strings
element by element. SQLite has no server to parse a statement for it: a parameter per value is quicker there, and only
the keys of rows come as JSON.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Index,
    Integer,
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

from service.ledger.tables import UtcDateTime

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

#: Execution option of a statement that is planned at each execution. PostgreSQL keeps the plan of a statement that is
#: executed often: a plan made while a table was small may read all of it for each key, for as long as it is kept.
PLANNED_ANEW = "ledger_planned_anew"

_Row = Mapping[str, Any]
_Rows = Sequence[_Row]
_NO_CONSTANTS: _Row = {}
_Insert: TypeAlias = "postgresql.Insert | sqlite.Insert"

# The parameter that holds all rows, as a JSON array of arrays, and for PostgreSQL the one that holds their number.
_ROWS, _COUNT = "rows", "count_of_rows"


class GivenRows:
    """The rows that a statement is executed with, as SQL expressions over one JSON parameter."""

    def __init__(self, dialect: str) -> None:
        """`dialect` is SQLAlchemy's name of the database: "postgresql" or "sqlite"."""
        self._is_sqlite = dialect == "sqlite"
        rows = bindparam(_ROWS, type_=Text)
        self._row: ColumnElement[Any]
        if self._is_sqlite:
            self._row = func.json_each(rows).table_valued("value").c.value
        else:
            from sqlalchemy.dialects.postgresql import JSONB  # a tenth of a second that the embedded ledger saves

            elements = select(func.jsonb_array_elements(cast(rows, JSONB)).label("element"))
            # Without the limit, PostgreSQL expects 100 rows whenever it plans. For as many it rather reads a table of
            # some ten thousand rows whole than look each of them up.
            self._row = elements.limit(bindparam(_COUNT, type_=Integer)).subquery("given").c.element

    def text(self, place: int) -> ColumnElement[Any]:
        """The value at `place` (from 0) of a row: a text, or NULL."""
        if self._is_sqlite:  # SQLite has the operator since 3.38 only
            return func.json_extract(self._row, text(f"'$[{place}]'"))
        return self._row.op("->>")(text(str(place)))

    def number(self, place: int) -> ColumnElement[Any]:
        """The value there as an integer."""
        return cast(self.text(place), Integer)

    def time(self, place: int) -> ColumnElement[Any]:
        """The value there as a time, or NULL."""
        # SQLite keeps times as text, and a cast would make a number of it.
        return self.text(place) if self._is_sqlite else cast(self.text(place), UtcDateTime)

    def of_column(self, place: int, column: Column[Any]) -> ColumnElement[Any]:
        """The value there in the column's type; for PostgreSQL."""
        value = self.text(place)
        return func.convert_to(value, "UTF8") if isinstance(column.type, LargeBinary) else cast(value, column.type)

    def have_key(self, columns: Sequence[Column[Any]]) -> ColumnElement[bool]:
        """The condition that these columns of text are what one of the rows begins with."""
        return tuple_(*columns).in_(select(*(self.text(place) for place in range(len(columns)))))

    def parameter(self, rows: Iterable[Iterable[object]]) -> Mapping[str, Any]:
        """What the statement is executed with. Values are texts, UTF-8 bytes, integers, aware times and None."""
        listed = [list(row) for row in rows]
        if self._is_sqlite:
            return {_ROWS: _SQLITE_JSON.encode(listed)}
        return {_ROWS: _POSTGRESQL_JSON.encode(listed), _COUNT: len(listed)}


def insert_into(connection: Connection, table: Table) -> _Insert:
    """An insert that knows `on_conflict`, which SQLAlchemy spells alike for both databases but keeps apart."""
    return _insert_into(connection.dialect.name, table)


def insert_new(
    connection: Connection,
    table: Table,
    rows: _Rows,
    *,
    constants: _Row = _NO_CONSTANTS,
    unique: Index | None = None,
    returning: Sequence[Column[Any]] = (),
) -> Sequence[Row[Any]]:
    """Insert, in their order, the rows that `unique` (else the primary key) does not hold yet; `returning` of each.

    All rows have the same columns; `constants` are further columns with one value for all rows. The result has no
    order. A row that violates another key is an error: skipping it would treat a row whose generated number is taken
    as a repeat.
    """
    if not rows:
        return []
    statement = _insert_new(connection.dialect.name, table, tuple(rows[0]), tuple(constants), unique, tuple(returning))
    result = execute_insert(connection, statement, rows, constants=constants)
    return result.all() if returning else []


def insert_or_update(
    connection: Connection, table: Table, rows: _Rows, *, unchanged: Collection[str] = (), growing: str | None = None
) -> None:
    """Insert the rows, and overwrite those that the primary key holds already, but for the columns in `unchanged`.

    Where `growing` names a column, a row is overwritten only by one with a larger value in it. No two rows share a key.
    """
    if rows:
        names = tuple(rows[0])
        statement = _insert_or_update(connection.dialect.name, table, names, frozenset(unchanged), growing)
        execute_insert(connection, statement, rows)


def make_insert(dialect: str, table: Table, names: Sequence[str], constants: Sequence[str] = ()) -> _Insert:
    """An insert of these columns for `execute_insert`. Keep it: making it costs more than executing it."""
    insert = _insert_into(dialect, table)
    if dialect == "sqlite":
        return insert.values({name: bindparam(name) for name in (*names, *constants)})
    given = GivenRows(dialect)
    values = [given.of_column(place, table.c[name]) for place, name in enumerate(names)]
    same = [cast(bindparam(name, type_=table.c[name].type), table.c[name].type) for name in constants]
    return insert.from_select([*names, *constants], select(*values, *same))


def execute_insert(connection: Connection, statement: _Insert, rows: _Rows, *, constants: _Row = _NO_CONSTANTS) -> Any:
    """Execute what `make_insert` made; each row has the columns that it was made for, in the same order."""
    if connection.dialect.name == "sqlite":
        return connection.execute(statement, [{**row, **constants} for row in rows])
    encoded = _POSTGRESQL_JSON.encode([list(row.values()) for row in rows])
    return connection.execute(statement, {_ROWS: encoded, _COUNT: len(rows), **constants})


def _insert_into(dialect: str, table: Table) -> _Insert:
    if dialect == "sqlite":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # see GivenRows

    return postgresql.insert(table)


# Tables, columns and indexes are compared by identity here, and there are few of each.
@cache
def _insert_new(
    dialect: str,
    table: Table,
    names: Sequence[str],
    constants: Sequence[str],
    unique: Index | None,
    returning: Sequence[Column[Any]],
) -> Any:
    insert = make_insert(dialect, table, names, constants)
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
    insert = make_insert(dialect, table, names)
    key = [column.name for column in table.primary_key]
    changing = [name for name in names if name not in key and name not in unchanged]
    return insert.on_conflict_do_update(
        index_elements=key,
        set_={name: insert.excluded[name] for name in changing},
        where=None if growing is None else table.c[growing] < insert.excluded[growing],
    )


def _postgresql_text(value: datetime | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else _iso_text(value)


@lru_cache(maxsize=16)  # most times of a batch are the one at which it is recorded
def _iso_text(time: datetime) -> str:
    if time.tzinfo is None:
        raise TypeError(f"a time without a zone: {time.isoformat()}")
    return time.isoformat()


def _sqlite_text(time: datetime) -> str:
    # As UtcDateTime is stored: in UTC, without the offset.
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


_POSTGRESQL_JSON = json.JSONEncoder(ensure_ascii=False, check_circular=False, default=_postgresql_text)
_SQLITE_JSON = json.JSONEncoder(ensure_ascii=False, check_circular=False, default=_sqlite_text)
