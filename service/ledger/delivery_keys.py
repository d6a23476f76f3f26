"""Deliveries by key, many in one statement: their keys come as one JSON parameter.

The text of such a statement does not depend on how many keys there are, so SQLAlchemy compiles it once.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Integer, Text, Update, bindparam, cast, func, text, update
from sqlalchemy.dialects.postgresql import JSONB

from service.ledger.columns import UtcDateTime
from service.ledger.inserts import PLANNED_ANEW
from service.ledger.tables import deliveries

#: What names a delivery: merchant, order number, endpoint, sequence.
DeliveryKey = tuple[str, str, str, int]

#: The columns of a `DeliveryKey`.
KEY = (deliveries.c.merchant, deliveries.c.biz_order_no, deliveries.c.endpoint, deliveries.c.sequence)

_ROWS = "given_rows"
# UTC, as `isoformat` ends a time; SQLite's column has none.
_OFFSET = "+00:00"


class GivenRows:
    """The rows that a statement is given: each a `DeliveryKey`, and behind it what else the statement needs."""

    def __init__(self, dialect: str) -> None:
        """`dialect` is SQLAlchemy's name of the database: "postgresql" or "sqlite"."""
        self._is_sqlite = dialect == "sqlite"
        rows = bindparam(_ROWS, type_=Text)
        self._row: ColumnElement[Any] = (
            func.json_each(rows).table_valued("value").c.value
            if self._is_sqlite
            else func.jsonb_array_elements(cast(rows, JSONB)).column_valued("given")
        )

    @property
    def update_own(self) -> Update:
        """An update of the deliveries that the rows name."""
        return self.update_lines.where(deliveries.c.sequence == self.number(len(KEY) - 1))

    @property
    def update_lines(self) -> Update:
        """An update of all deliveries of the same orders to the same endpoints."""
        in_same_line = [column == self.text(place) for place, column in enumerate(KEY[:-1])]
        return update(deliveries).where(*in_same_line).execution_options(**{PLANNED_ANEW: True})

    def text(self, place: int) -> ColumnElement[Any]:
        """What stands at `place` (from 0) of a row: a text, or NULL."""
        if self._is_sqlite:  # which has the operator since 3.38 only
            return func.json_extract(self._row, text(f"'$[{place}]'"))
        return self._row.op("->>")(text(str(place)))

    def number(self, place: int) -> ColumnElement[Any]:
        """What stands there as an integer."""
        return cast(self.text(place), Integer)

    def time(self, place: int) -> ColumnElement[Any]:
        """What stands there as a time, or NULL."""
        # SQLite keeps times as text, and would make a number of it.
        return self.text(place) if self._is_sqlite else cast(self.text(place), UtcDateTime)

    def parameter(self, rows: Iterable[Sequence[object]]) -> Mapping[str, Any]:
        """What the statement is executed with. Values are texts, integers, aware times and None."""
        return {_ROWS: json.dumps([list(row) for row in rows], ensure_ascii=False, default=self._time_text)}

    def _time_text(self, time: datetime) -> str:
        written = time.astimezone(UTC).isoformat(" ", "microseconds")
        return written.removesuffix(_OFFSET) if self._is_sqlite else written
