"""`payment-callbacks sign`: why a callback's sign fits or does not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.domain.masking import escape_controls
from service.gateway.errors import CallbackRefused
from service.gateway.sign_explanation import (
    Candidate,
    Mismatch,
    Trait,
    describe_dialect,
    describe_kind,
    explain,
    mask_signed_text,
)
from service.gateway.signature import VerifiedCallback

# The width if the output is not a terminal: enough for two texts side by side.
_PIPED_COLUMNS = 160
_BEFORE, _AFTER = 20, 40
_MARK = "»"
_MARKED = "bold red"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The excerpts of two texts around their first difference."""

    left: Text
    right: Text


_MASKED_DIFFERENCE = Difference(left=Text("(the difference is masked; --unmasked shows it)"), right=Text(""))


@click.group()
def sign() -> None:
    """Examine the signs of callbacks."""


@sign.command(name="explain")
@click.argument("body", metavar="[FILE]", type=click.File("rb"), default="-")
@click.option("--content-type", metavar="HEADER", help="The request's Content-Type. Only multipart may need it.")
@click.option("--unmasked", is_flag=True, help="Do not mask personal data in the texts.")
@click.option("--full", is_flag=True, help="Show every hashed text in full.")
def explain_command(body: BinaryIO, content_type: str | None, unmasked: bool, full: bool) -> None:
    """Show in which JSON dialect a captured callback was signed, or why no known dialect fits.

    FILE (or standard input) holds the callback's body, byte for byte as received: JSON, a form, or one inside the
    other. The receiver's own code checks it. The exit code is 1 if the receiver would refuse the callback. Numbers that
    may be personal data are masked. Names in free text cannot be recognised and are not masked.
    """
    console = _console()
    try:
        outcome = explain(body.read(), content_type)
    except CallbackRefused as error:
        raise click.ClickException(f"refused ({error.reason}): {error.detail}") from error
    if isinstance(outcome, VerifiedCallback):
        _print_match(console, outcome)
        return
    _print_mismatch(console, outcome, escape_controls if unmasked else mask_signed_text, full=full)
    raise click.exceptions.Exit(1)


def _console() -> Console:
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=_PIPED_COLUMNS)


def _print_match(console: Console, verified: VerifiedCallback) -> None:
    console.print(
        f"The sign fits. The body is {describe_kind(verified.kind)}, "
        f"with {len(verified.fields)} fields besides the sign."
    )
    console.print(f"Dialect {verified.dialect}: {describe_dialect(verified.dialect)}.")
    console.print("This does not prove who sent it: the sign has no secret.")


def _print_mismatch(console: Console, mismatch: Mismatch, show: Callable[[str], str], *, full: bool) -> None:
    tried = sum(len(candidate.dialects) for candidate in mismatch.candidates)
    # The sender also chooses the names: they may hold control characters.
    names = ", ".join(show(name) for name in mismatch.fields)
    console.print(
        f"The sign does not fit. The body is {describe_kind(mismatch.kind)}; "
        f"its sign is {mismatch.received_sign}.\n"
        f"{tried} ways of writing its {len(mismatch.fields)} fields ({names}) were tried, "
        f"with {len(mismatch.candidates)} different texts.\n"
    )
    if mismatch.guess is None:
        console.print(
            "No known change of the fields makes it fit either. Perhaps the body was changed in transit or when it was "
            "captured,\nor the gateway hashes a secret as well: ask its support for an example of the text before "
            "md5.\n"
        )
    else:
        console.print(
            f"It would fit if {show(mismatch.guess.what)}, in dialect {mismatch.guess.dialect} "
            f"({describe_dialect(mismatch.guess.dialect)}).\nThe receiver does not accept that.\n"
        )
    if mismatch.traits:
        console.print("What languages write differently in these fields:")
        console.print(_trait_table(mismatch.traits, show))
    else:
        console.print("All known languages write these fields in the same way.")
    _print_texts(console, mismatch.candidates, show, full=full)


def _trait_table(traits: Sequence[Trait], show: Callable[[str], str]) -> Table:
    table = Table("field", "holds", "written as", "by")
    for trait in traits:
        rows = [(form, _some(names)) for form, names in trait.spellings.items()] or [("", "")]
        for number, (form, names) in enumerate(rows):
            heading = ("", "") if number else (show(trait.field or "(their order)"), show(trait.what))
            table.add_row(*map(Text, (*heading, form, names)), end_section=number == len(rows) - 1)
    return table


def _print_texts(console: Console, candidates: Sequence[Candidate], show: Callable[[str], str], *, full: bool) -> None:
    first = show(candidates[0].canonical)
    console.print(f"\nText 1, by {_some(candidates[0].dialects)}, md5 {candidates[0].sign}:")
    console.print(Text(first), soft_wrap=True)
    table = Table("text", "written by", "text 1 from its first difference", "this text from there", show_lines=True)
    for number, candidate in enumerate(candidates[1:], start=2):
        difference = first_difference(first, show(candidate.canonical)) or _MASKED_DIFFERENCE
        table.add_row(str(number), Text(_some(candidate.dialects)), difference.left, difference.right)
    if len(candidates) > 1:
        console.print("\nThe other texts; » marks their first difference from text 1:")
        console.print(table)
    if full:
        for number, candidate in enumerate(candidates[1:], start=2):
            console.print(f"\nText {number}, by {', '.join(candidate.dialects)}, md5 {candidate.sign}:")
            console.print(Text(show(candidate.canonical)), soft_wrap=True)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def first_difference(left: str, right: str) -> Difference | None:
    """The first difference of two texts; None if they are equal."""
    if left == right:
        return None
    place = next((at for at, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1]), None)
    if place is None:
        place = min(len(left), len(right))
    return Difference(left=_excerpt(left, place), right=_excerpt(right, place))


def _excerpt(text: str, place: int) -> Text:
    start, end = max(0, place - _BEFORE), place + _AFTER
    excerpt = Text("…" if start else "")
    excerpt.append(text[start:place])
    excerpt.append(_MARK, style=_MARKED)
    excerpt.append(text[place : place + 1] or "(its end)", style=_MARKED)
    excerpt.append(text[place + 1 : end])
    excerpt.append("…" if end < len(text) else "")
    return excerpt
