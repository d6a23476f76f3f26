"""Text and tables of it, for a terminal or a pipe."""

import sys
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.domain.masking import escape_controls, mask_personal

# A pipe has no width, so this one is wide enough for every table.
_WIDTH_OF_A_PIPE = 240
#: Columns of identifiers, which a person has to read and copy. Every other column may hold personal data.
_IDENTIFIERS = frozenset({"merchant", "biz_order_no", "pay_order_no", "requestId", "item", "next step", "of", "event"})


def make_console() -> Console:
    """Where tables are printed: standard output."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE)


def make_table(title: str, *columns: str) -> Table:
    """An empty table of text."""
    table = Table(title=title or None, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def add_row(table: Table, *cells: str) -> None:
    """Add a row, with personal data masked in every column but those of identifiers."""
    shown = (
        cell if column.header in _IDENTIFIERS else mask_personal(cell)
        for column, cell in zip(table.columns, cells, strict=True)
    )
    # As plain text: the gateway wrote parts of it, which must neither control the terminal nor be markup.
    table.add_row(*(Text(escape_controls(cell)) for cell in shown))


def time_text(time: datetime | None) -> str:
    """A time in UTC, to the second; "" where there is none."""
    return "" if time is None else f"{time:%Y-%m-%d %H:%M:%S}Z"
