"""Reads `Settings` from a TOML file; AMQP_URL and DATABASE_URL of the environment win."""

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from marshmallow import Schema, ValidationError, fields

from service.settings import Settings
from service.settings_schemas import SettingsSchema


class SettingsError(Exception):
    """The settings cannot be used. Each line names a key, what is wrong with it and what is allowed."""


def load_settings(path: Path, environment: Mapping[str, str]) -> Settings:
    """The settings in the TOML file at `path`; relative paths in it start at its folder.

    Raises SettingsError with a line per mistake.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SettingsError(
            f"{path}: cannot be read: there is no such file; name another by --config or PAYMENT_CALLBACKS_CONFIG, or"
            " begin with `payment-callbacks config example`"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    return parse_settings(text, environment, name=str(path), folder=path.parent)


def parse_settings(text: str, environment: Mapping[str, str], *, name: str, folder: Path) -> Settings:
    """The settings in TOML `text`, called `name` in errors; relative paths in it start at `folder`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{name}: not TOML: {error}") from error
    if urls := environment.get("AMQP_URL"):
        document.setdefault("broker", {})["urls"] = urls.split(",")
    if url := environment.get("DATABASE_URL"):
        document["database_url"] = url
    mistakes: list[str] = []
    document = _resolve(document, environment, folder, (), mistakes)
    document.setdefault("data_directory", "data")
    schema = SettingsSchema()
    try:
        settings: Settings = schema.load(document)
    except ValidationError as error:
        # Of a secret that is not there the schema can only say that it is empty.
        said = {_place(line) for line in mistakes}
        mistakes += [line for line in _lines(error.messages, schema, ()) if _place(line) not in said]
        raise SettingsError("\n".join(f"{name}: {line}" for line in mistakes)) from error
    if mistakes:
        raise SettingsError("\n".join(f"{name}: {line}" for line in mistakes))
    return replace(settings, data_directory=folder / settings.data_directory)


def _resolve(value: Any, environment: Mapping[str, str], folder: Path, where: tuple[str, ...], bad: list[str]) -> Any:
    """Puts the secret in the place of every `{ env = "NAME" }` and `{ file = "..." }`."""
    if isinstance(value, list):
        return [_resolve(item, environment, folder, (*where, str(i)), bad) for i, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if set(value) == {"env"}:
        variable = str(value["env"])
        if not environment.get(variable):
            bad.append(f"{'.'.join(where)}: the environment variable {variable} is not set")
        return environment.get(variable, "")
    if set(value) == {"file"}:
        try:
            return (folder / str(value["file"])).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            bad.append(f"{'.'.join(where)}: the secret's file cannot be read: {error}")
            return ""
    return {key: _resolve(item, environment, folder, (*where, key), bad) for key, item in value.items()}


def _lines(messages: Any, field: Any, where: tuple[str, ...]) -> Iterator[str]:
    """Marshmallow's tree of messages as lines, each with its key and, for an unknown one, the nearest known."""
    if not isinstance(messages, dict):
        for message in messages if isinstance(messages, list) else [messages]:
            yield f"{'.'.join(where) or 'settings'}: {message}"
        return
    for key, below in messages.items():
        in_dict = isinstance(field, fields.Dict) and key in ("key", "value")
        place = where if key == "_schema" or in_dict else (*where, str(key))
        known = _children(field)
        if below == ["Unknown field."] and known is not None:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(sorted(known))}"
            yield f"{'.'.join(place)}: unknown key; {hint}"
        else:
            yield from _lines(below, _child(field, str(key)), place)


def _place(line: str) -> str:
    return line.partition(": ")[0]


def _schema_of(field: Any) -> Any:
    return field.schema if isinstance(field, fields.Nested) else field


def _children(field: Any) -> Sequence[str] | None:
    field = _schema_of(field)
    return list(field.fields) if isinstance(field, Schema) else None


def _child(field: Any, key: str) -> Any:
    """The schema one step down; a dict's and a list's messages name the item, then `value`."""
    field = _schema_of(field)
    if isinstance(field, Schema):
        return field.fields.get(key)
    if isinstance(field, fields.Dict):
        return field.value_field if key == "value" else field
    if isinstance(field, fields.List):
        return field.inner
    return None
