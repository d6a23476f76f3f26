"""A look into a ledger's database, ours or a peer's: both have the tables `orders` and `claims`."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import LiteralString

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from tests.benchmarks.callbacks import MERCHANT


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """One database of a private cluster."""

    #: For SQLAlchemy.
    url: str
    #: Whether its orders belong to merchants.
    ours: bool = True

    def has_orders(self) -> bool:
        """Whether it has that table yet."""
        return self._ask("SELECT count(to_regclass('orders'))") == (1,)

    def count_orders(self, prefix: str) -> int:
        """How many orders it knows whose numbers begin with `prefix` and a hyphen."""
        # All numbers of that prefix are between these two. The key of our table begins with the merchant.
        merchants = "merchant = %s AND " if self.ours else ""
        query = f"SELECT count(*) FROM orders WHERE {merchants}biz_order_no >= %s AND biz_order_no < %s"
        return int(self._ask(query, *([MERCHANT] if self.ours else []), f"{prefix}-", f"{prefix}.")[0])

    def check_claims(self, prefix: str, *, total: int) -> None:
        """Fail unless it has one claim about each of so many orders."""
        query = "SELECT count(*), count(DISTINCT biz_order_no) FROM claims WHERE biz_order_no LIKE %s"
        counts = self._ask(query, f"{prefix}-%")
        assert counts == (total, total), f"{total} claims were to be recorded once each: {counts}"

    def count_deliveries(self, *, endpoint: str, state: str) -> int:
        """How many of our deliveries to an endpoint are in a state."""
        query = "SELECT count(*) FROM deliveries WHERE endpoint = %s AND state = %s"
        return int(self._ask(query, endpoint, state)[0])

    def analyze(self) -> None:
        """Let the database look at its tables again, as it would by itself within a minute or so."""
        self._execute("VACUUM ANALYZE")

    def copy(self, name: str) -> "Database":
        """Another database with what is in this one, to which nobody may be connected."""
        mine = make_url(self.url)
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
            sql.Identifier(name), sql.Identifier(str(mine.database))
        )
        other = Database(url=mine.set(database=name).render_as_string(hide_password=False), ours=self.ours)
        Database(url=mine.set(database="postgres").render_as_string(hide_password=False))._execute(statement)
        return other

    def drop(self) -> None:
        """Remove it, whoever is connected."""
        mine = make_url(self.url)
        statement = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(str(mine.database)))
        Database(url=mine.set(database="postgres").render_as_string(hide_password=False))._execute(statement)

    def multiply(
        self,
        biz_order_no: str,
        *,
        prefix: str,
        first: int,
        count: int,
        varied: Mapping[str, LiteralString] | None = None,
    ) -> None:
        """Add `count` orders like one that is there, with all that is known of it, numbered from `first`.

        Whatever columns the tables have: a value in which the order's number stands gets the other's number. `varied`
        has other values, as SQL by the column's name; they may use `numbers.number` and `numbers.biz_order_no`.
        """
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            # Not to look each of millions of foreign keys up that cannot be wrong.
            connection.execute("SET session_replication_role = replica")
            columns_of: dict[str, list[tuple[str, str]]] = defaultdict(list)
            for table, column, type_name in connection.execute(
                "SELECT table_name, column_name, udt_name FROM information_schema.columns"
                " JOIN information_schema.tables USING (table_schema, table_name)"
                " WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
                " AND is_identity = 'NO' AND column_default IS NULL"
            ):
                columns_of[table].append((column, type_name))
            for table, columns in columns_of.items():
                if "biz_order_no" in dict(columns):
                    connection.execute(
                        _multiplication(connection, table, columns, biz_order_no, varied or {}),
                        {"prefix": prefix, "first": first, "last": first + count - 1, "like": biz_order_no},
                    )

    @contextmanager
    def without_indexes(self) -> Iterator[None]:
        """Within it there are only the indexes of keys; at its end, all others are made anew.

        It takes far longer to add rows to an index, one by one, than to make the index from all of them.
        """
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            found = connection.execute(
                "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index"
                " JOIN pg_class ON pg_class.oid = indexrelid"
                " WHERE relnamespace = 'public'::regnamespace AND NOT indisunique"
            ).fetchall()
            for name, _ in found:
                connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
            yield
            connection.execute("SET maintenance_work_mem = '1GB'")
            for _, definition in found:
                connection.execute(definition.encode())

    def execute(self, statement: LiteralString) -> None:
        """Run a statement that returns nothing."""
        self._execute(statement)

    def _ask(self, query: str, *parameters: object) -> tuple[int, ...]:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            row = connection.execute(query, parameters).fetchone()
        assert row is not None
        return tuple(row)

    def _execute(self, statement: LiteralString | sql.Composed) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(statement)

    @property
    def _dsn(self) -> str:
        return self.url.replace("+psycopg", "")


def _multiplication(
    connection: psycopg.Connection,
    table: str,
    columns: list[tuple[str, str]],
    biz_order_no: str,
    varied: Mapping[str, LiteralString],
) -> sql.Composed:
    """A statement with the parameters `prefix`, `first`, `last` and `like`, the order to copy."""
    values: list[sql.Composable] = []
    for column, type_name in columns:
        if column in varied:
            values.append(sql.SQL(varied[column]))
            continue
        contains = sql.SQL("SELECT 1 FROM {} WHERE biz_order_no = %s AND position(%s in {}::text) > 0 LIMIT 1").format(
            sql.Identifier(table), sql.Identifier(column)
        )
        if connection.execute(contains, (biz_order_no, biz_order_no)).fetchone():
            value = sql.SQL("replace(old.{column}::text, %(like)s, numbers.biz_order_no)::{type}").format(
                column=sql.Identifier(column), type=sql.Identifier(type_name)
            )
        else:
            value = sql.SQL("old.{}").format(sql.Identifier(column))
        values.append(value)
    return sql.SQL(
        "INSERT INTO {table} ({columns}) SELECT {values} FROM {table} AS old,"
        " (SELECT number, %(prefix)s || '-' || lpad(number::text, 8, '0') AS biz_order_no"
        " FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS number) AS numbers"
        " WHERE old.biz_order_no = %(like)s"
    ).format(
        table=sql.Identifier(table),
        columns=sql.SQL(", ").join(sql.Identifier(column) for column, _ in columns),
        values=sql.SQL(", ").join(values),
    )
