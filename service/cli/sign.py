"""`payment-callbacks sign`: why a callback's sign fits or does not."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli.escaping import escape_controls
from service.domain.masking import mask_personal
from service.gateway.errors import CallbackRefused
from service.gateway.explain import Candidate, Mismatch, Trait, describe_dialect, describe_kind, explain
from service.gateway.signature import VerifiedCallback
from service.runtime.logs import SENSITIVE_FIELDS

#: Where the output is no terminal; wide enough for two texts side by side.
_PIPED_COLUMNS = 160
_BEFORE, _AFTER = 20, 40
_MARK = "»"
_MARKED = "bold red"
# A field of that name with its whole value, in any JSON dialect.
_SENSITIVE = re.compile(rf'("(?:{"|".join(sorted(SENSITIVE_FIELDS))})"\s*:\s*)(?:"(?:[^"\\]|\\.)*"|[^",{{}}\[\]]+)')


class Shown:
    """How texts are shown."""

    def __init__(self, *, unmasked: bool) -> None:
        self._unmasked = unmasked

    def text(self, canonical: str) -> str:
        """The text as it may be seen; white space at its ends and control characters are made visible."""
        return escape_controls(canonical if self._unmasked else mask_personal(_SENSITIVE.sub(r'\1"…"', canonical)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Where two texts part, on either side."""

    left: Text
    right: Text


_MASKED_DIFFERENCE = Difference(left=Text("(the difference is masked; --unmasked shows it)"), right=Text(""))


@click.group()
def sign() -> None:
    """Look into the signs of callbacks."""


@sign.command(name="explain")
@click.argument("body", metavar="[FILE]", type=click.File("rb"), default="-")
@click.option("--content-type", metavar="HEADER", help="The request's Content-Type; needed for multipart at most.")
@click.option("--unmasked", is_flag=True, help="Show personal data in the texts as it is.")
@click.option("--full", is_flag=True, help="Show every text that was hashed from beginning to end.")
def explain_command(body: BinaryIO, content_type: str | None, unmasked: bool, full: bool) -> None:
    """Say which way of writing JSON a captured callback was signed in, or why none of the known ones fits.

    FILE (or standard input) holds the callback's body, byte for byte as it came in: JSON or a form, or one in the
    other. It is checked by the receiver's own code. Ends with 1 where the receiver would refuse it. Numbers that may be
    personal are masked; names in free text cannot be found and are not.
    """
    console = _console()
    try:
        outcome = explain(body.read(), content_type)
    except CallbackRefused as error:
        raise click.ClickException(f"refused ({error.reason}): {error.detail}") from error
    if isinstance(outcome, VerifiedCallback):
        _tell_match(console, outcome)
        return
    _tell_mismatch(console, outcome, Shown(unmasked=unmasked), full=full)
    raise click.exceptions.Exit(1)


def _console() -> Console:
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=_PIPED_COLUMNS)


def _tell_match(console: Console, verified: VerifiedCallback) -> None:
    console.print(
        f"The sign fits. The body is {describe_kind(verified.kind)}, "
        f"with {len(verified.fields)} fields besides the sign."
    )
    console.print(f"Dialect {verified.dialect}: {describe_dialect(verified.dialect)}.")
    console.print("That it fits says nothing of who sent it: the sign has no secret.")


def _tell_mismatch(console: Console, mismatch: Mismatch, shown: Shown, *, full: bool) -> None:
    tried = sum(len(candidate.dialects) for candidate in mismatch.candidates)
    # Names are the sender's, too, and must move no cursor.
    names = ", ".join(shown.text(name) for name in mismatch.fields)
    console.print(
        f"The sign does not fit. The body is {describe_kind(mismatch.kind)}; "
        f"the sign that came with it is {mismatch.received_sign}.\n"
        f"Tried were {tried} ways of writing its {len(mismatch.fields)} fields ({names}), "
        f"which make {len(mismatch.candidates)} different texts.\n"
    )
    if mismatch.guess is None:
        console.print(
            "No change of the fields that we know of makes it fit either. Perhaps the body was changed on its way or "
            "when it was captured,\nor a secret is part of what the gateway hashes: ask its people for one example of "
            "the text before md5.\n"
        )
    else:
        console.print(
            f"It would fit if {shown.text(mismatch.guess.what)}, in dialect {mismatch.guess.dialect} "
            f"({describe_dialect(mismatch.guess.dialect)}).\nThe receiver does not accept that by itself.\n"
        )
    if mismatch.traits:
        console.print("What languages write differently in these fields:")
        console.print(_trait_table(mismatch.traits, shown))
    else:
        console.print("Nothing in these fields is written differently by any known language.")
    _tell_texts(console, mismatch.candidates, shown, full=full)


def _trait_table(traits: Sequence[Trait], shown: Shown) -> Table:
    table = Table("field", "holds", "written as", "by")
    for trait in traits:
        rows = [(form, _some(names)) for form, names in trait.spellings.items()] or [("", "")]
        for number, (form, names) in enumerate(rows):
            heading = ("", "") if number else (shown.text(trait.field or "(their order)"), shown.text(trait.what))
            table.add_row(*map(Text, (*heading, form, names)), end_section=number == len(rows) - 1)
    return table


def _tell_texts(console: Console, candidates: Sequence[Candidate], shown: Shown, *, full: bool) -> None:
    first = shown.text(candidates[0].canonical)
    console.print(f"\nText 1, by {_some(candidates[0].dialects)}, md5 {candidates[0].sign}:")
    console.print(Text(first), soft_wrap=True)
    table = Table("text", "written by", "text 1 from its first difference", "this text from there", show_lines=True)
    for number, candidate in enumerate(candidates[1:], start=2):
        difference = first_difference(first, shown.text(candidate.canonical)) or _MASKED_DIFFERENCE
        table.add_row(str(number), Text(_some(candidate.dialects)), difference.left, difference.right)
    if len(candidates) > 1:
        console.print("\nThe other texts; » marks where they part from text 1:")
        console.print(table)
    if full:
        for number, candidate in enumerate(candidates[1:], start=2):
            console.print(f"\nText {number}, by {', '.join(candidate.dialects)}, md5 {candidate.sign}:")
            console.print(Text(shown.text(candidate.canonical)), soft_wrap=True)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def first_difference(left: str, right: str) -> Difference | None:
    """What stands around the first difference of two texts; None where they are equal."""
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
