"""Reads `Settings` from a TOML file; AMQP_URL and DATABASE_URL of the environment win."""

import difflib
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from marshmallow import Schema, ValidationError, fields

from service.config.schemas import SettingsSchema
from service.config.settings import Settings


class SettingsError(Exception):
    """The settings cannot be used. Each line names a key, what is wrong with it and what is allowed."""


#: Finds what cannot be used in settings that hold to their schema: the place of each mistake, and what is wrong there.
FindMistakes = Callable[[Settings], Iterable[tuple[str, str]]]


def load_settings(
    path: Path, environment: Mapping[str, str], *, find_mistakes: FindMistakes = lambda _: ()
) -> Settings:
    """The settings in the TOML file at `path`; relative paths in it start at its folder.

    Raises SettingsError with a line per mistake, those of `find_mistakes` among them.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise SettingsError(
            f"{path}: cannot be read: there is no such file; name another by --config or PAYMENT_CALLBACKS_CONFIG, or"
            " begin with `payment-callbacks config example`"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    return parse_settings(text, environment, name=str(path), folder=path.parent, find_mistakes=find_mistakes)


def parse_settings(
    text: str,
    environment: Mapping[str, str],
    *,
    name: str,
    folder: Path,
    find_mistakes: FindMistakes = lambda _: (),
) -> Settings:
    """The settings in TOML `text`, called `name` in errors; relative paths in it start at `folder`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{name}: not TOML: {error}") from error
    reader = _Reader(environment=environment, folder=folder)
    document = reader.resolve(reader.with_urls(document))
    document.setdefault("data_directory", "data")
    schema = SettingsSchema()
    found: Iterable[tuple[str, str]]
    try:
        settings: Settings = schema.load(document)
        found = find_mistakes(settings)
    except ValidationError as error:
        found = _found(error.messages, schema, ())
    # Of a secret that is not there the schema can only say that it is empty.
    others = [(place, f"{message}{reader.origin(place)}") for place, message in found if place not in reader.mistakes]
    if mistakes := [*reader.mistakes.items(), *others]:
        raise SettingsError("\n".join(f"{name}: {place}: {message}" for place, message in mistakes))
    return replace(settings, data_directory=folder / settings.data_directory)


class _Reader:
    """Puts the secret in the place of every `{ env = "NAME" }` and `{ file = "..." }`, and knows whence it came."""

    def __init__(self, *, environment: Mapping[str, str], folder: Path) -> None:
        self._environment = environment
        self._folder = folder
        self._origins: dict[str, str] = {}
        #: What could not be had, by place.
        self.mistakes: dict[str, str] = {}

    def origin(self, place: str) -> str:
        """Where the value at `place` was given, for the end of a message; "" where the settings' file says it."""
        origin = self._origins.get(place)
        return f" (given by {origin})" if origin else ""

    def with_urls(self, document: dict[str, Any]) -> dict[str, Any]:
        """The document with the URLs that the environment names in place of its own."""
        if urls := self._environment.get("AMQP_URL"):
            broker = document.setdefault("broker", {})
            if isinstance(broker, dict):
                broker["urls"] = [url.strip() for url in urls.split(",")]
            for number in range(urls.count(",") + 1):
                self._origins[f"broker.urls.{number}"] = "the environment variable AMQP_URL"
        if url := self._environment.get("DATABASE_URL"):
            document["database_url"] = url
            self._origins["database_url"] = "the environment variable DATABASE_URL"
        return document

    def resolve(self, value: Any, where: tuple[str, ...] = ()) -> Any:
        """The value, and all below it, with its secrets."""
        if isinstance(value, list):
            return [self.resolve(item, (*where, str(number))) for number, item in enumerate(value)]
        if not isinstance(value, dict):
            return value
        place = ".".join(where)
        if set(value) == {"env"}:
            variable = str(value["env"])
            self._origins[place] = f"the environment variable {variable}"
            if not self._environment.get(variable):
                self.mistakes[place] = f"the environment variable {variable} is not set"
            return self._environment.get(variable, "").rstrip("\r\n")
        if set(value) == {"file"}:
            self._origins[place] = f"the file {value['file']}"
            try:
                return (self._folder / str(value["file"])).read_text(encoding="utf-8-sig").rstrip("\r\n")
            except OSError as error:
                self.mistakes[place] = f"the secret's file cannot be read: {error}"
            except UnicodeDecodeError:  # which quotes what it cannot read
                self.mistakes[place] = f"the secret's file cannot be read: {value['file']} is not UTF-8"
            return ""
        return {key: self.resolve(item, (*where, key)) for key, item in value.items()}


def _found(messages: Any, field: Any, where: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Marshmallow's tree of messages, each with its place; that of an unknown key with the nearest known one."""
    if not isinstance(messages, dict):
        for message in messages if isinstance(messages, list) else [messages]:
            yield ".".join(where) or "settings", str(message)
        return
    for key, below in messages.items():
        in_dict = isinstance(field, fields.Dict) and key in ("key", "value")
        place = where if key == "_schema" or in_dict else (*where, str(key))
        known = _children(field)
        if below == ["Unknown field."] and known is not None:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(sorted(known))}"
            yield ".".join(place), f"unknown key; {hint}"
        else:
            yield from _found(below, _child(field, str(key)), place)


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
