"""Personal data for a command: from a file or a prompt, never from arguments, which other users could see."""

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

#: The prompt for each field.
_PROMPTS = {
    "name": "Name",
    "id_card_number": "ID number (18 characters)",
    "bank_card_number": "Bank card number",
    "mobile": "Mobile number",
    "verification_code": "Verification code",
}
# The other fields are not shown while they are typed.
_SHOWN_WHILE_TYPED = frozenset({"name"})

from_option = click.option(
    "--from",
    "file",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="A JSON or TOML file with the personal data, or - for standard input. Missing fields are prompted for.",
)


def collect(file: Path | None, *, needed: Sequence[str], optional: Sequence[str] = ()) -> dict[str, str]:
    """The fields by name. The `optional` ones are read from the file only. Errors quote no values."""
    allowed = list(dict.fromkeys([*needed, *optional]))
    found = {} if file is None else _read(file, allowed)
    for name in needed:
        if name not in found:
            found[name] = click.prompt(_PROMPTS[name], hide_input=name not in _SHOWN_WHILE_TYPED).strip()
    return found


def _read(file: Path, allowed: Sequence[str]) -> dict[str, str]:
    document = _parse(file)
    for name, value in document.items():
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
            hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(allowed)}"
            raise click.ClickException(f"{file}: {name}: unknown key; {hint}")
        if not isinstance(value, str):
            raise click.ClickException(f"{file}: {name}: must be a string, in quotes")
    return dict(document)


def _parse(file: Path) -> Mapping[str, Any]:
    try:
        with click.open_file(str(file), encoding="utf-8-sig") as opened:
            text = opened.read()
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file}: cannot be read ({type(error).__name__})") from error
    try:
        document: dict[str, Any] = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except (json.JSONDecodeError, tomllib.TOMLDecodeError):
        # Without the cause, which would quote the text.
        raise click.ClickException(f"{file}: neither a JSON object nor TOML") from None
    return document
