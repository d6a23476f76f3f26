"""Lists page by page, and results as JSON: what the commands share that show the same as the API."""

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from marshmallow import Schema, ValidationError

from service.api.fields import MAX_LISTED
from service.ledger.cursors import Placed, next_cursor, read_cursor

_Item = TypeVar("_Item", bound=Placed)

#: `--json`, for `print_json` and `print_page`.
as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, like the API.")


class _Cursor(click.ParamType[Any]):
    name = "text"

    def __init__(self, kind: Callable[..., tuple[Any, ...]]) -> None:
        self._kind = kind

    def convert(self, value: Any, _param: click.Parameter | None, _ctx: click.Context | None) -> Any:
        try:
            return read_cursor(self._kind, value)
        except ValidationError as error:
            raise click.UsageError("--after has to be the value that an earlier page printed") from error


def after_option(kind: Callable[..., tuple[Any, ...]]) -> Callable[[Any], Any]:
    """`--after`: the place at which the previous page ended, a named tuple of this kind."""
    return click.option("--after", type=_Cursor(kind), help="Where the previous page ended: the value that it printed.")


def limit_option(default: int) -> Callable[[Any], Any]:
    """`--limit`: how many items a page has at most."""
    return click.option("--limit", default=default, show_default=True, type=click.IntRange(1, MAX_LISTED))


def print_json(schema: Schema, value: object, **more: object) -> None:
    """Print what the API would answer, after the members `more`."""
    click.echo(json.dumps({**more, **schema.dump(value)}, ensure_ascii=False, indent=2))


def print_page(
    schema: Schema,
    name: str,
    page: Sequence[_Item],
    *,
    limit: int,
    as_json: bool,
    show: Callable[[Sequence[_Item]], None],
) -> None:
    """Print a page of a list, and how to get the next one. `name` is the list's member in the API's answer."""
    following = next_cursor(page, limit=limit)
    if as_json:
        print_json(schema, {name: page, "next": following})
        return
    show(page)
    if following:
        click.echo(f"There may be more: --after {following}", err=True)
