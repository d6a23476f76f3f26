"""Deliveries by name, many at a time."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import and_, bindparam, tuple_

from service.ledger.tables import deliveries

#: What names a delivery: merchant, order number, endpoint, sequence.
DeliveryKey = tuple[str, str, str, int]

#: The columns of a `DeliveryKey`.
KEY = (deliveries.c.merchant, deliveries.c.biz_order_no, deliveries.c.endpoint, deliveries.c.sequence)
_LINE = KEY[:3]

# SQLite uses no index for a list of tuples: by the tuples alone it would read the whole table.
_NEAR = and_(
    *(column.in_(bindparam(f"{column.name}s", expanding=True)) for column in _LINE),
)

#: The condition for the deliveries of certain keys; `named` has its parameters.
NAMED = and_(_NEAR, tuple_(*KEY).in_(bindparam("keys", expanding=True)))
#: The condition for all deliveries of the same orders to the same endpoints, with the same parameters.
IN_SAME_LINES = and_(_NEAR, tuple_(*_LINE).in_(bindparam("lines", expanding=True)))


def named(keys: Collection[DeliveryKey]) -> dict[str, Any]:
    """The parameters of `NAMED` and of `IN_SAME_LINES`; at least one key."""
    near = {f"{column.name}s": sorted({key[place] for key in keys}) for place, column in enumerate(_LINE)}
    return {**near, "keys": list(keys), "lines": sorted({key[:3] for key in keys})}
