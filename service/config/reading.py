"""Reads `Settings` from a TOML file. The variables AMQP_URL and DATABASE_URL override it."""

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from service.config.schema import InvalidSection, Mistake, load_section
from service.config.settings import Settings


class SettingsError(Exception):
    """The settings cannot be used. Each line names a key, what is wrong, and what is allowed."""


#: Finds mistakes that only the libraries can see, such as a URL that cannot be connected to.
FindMistakes = Callable[[Settings], Iterable[Mistake]]


def load_settings(
    path: Path, environment: Mapping[str, str], *, find_mistakes: FindMistakes = lambda _: ()
) -> Settings:
    """Read the TOML file at `path`. Relative paths in it start at its folder.

    Raises SettingsError with a line per mistake, including those of `find_mistakes`.
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
    """Read TOML. `name` names the text in errors, and relative paths in it start at `folder`."""
    reader = _Reader(environment=environment, folder=folder)
    document = reader.resolve(reader.with_urls(parse_toml(text, name=name)))
    found: Iterable[Mistake]
    try:
        settings = load_section(Settings, document)
        found = find_mistakes(settings)
    except InvalidSection as error:
        found = error.mistakes
    # A secret that cannot be read is empty for the schema: report the cause only.
    others = [(place, f"{message}{reader.origin(place)}") for place, message in found if place not in reader.mistakes]
    if mistakes := [*reader.mistakes.items(), *others]:
        raise SettingsError(describe_mistakes(mistakes, name=name))
    return replace(
        settings,
        data_directory=folder / settings.data_directory,
        merchants={slug: replace(merchant, slug=slug) for slug, merchant in settings.merchants.items()},
    )


def parse_toml(text: str, *, name: str) -> dict[str, Any]:
    """The document in `text`, called `name` in errors. Raises SettingsError."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{name}: not TOML: {error}") from error


def describe_mistakes(mistakes: Iterable[Mistake], *, name: str) -> str:
    """One line per mistake. `name` names the file."""
    return "\n".join(f"{name}: {place or 'settings'}: {message}" for place, message in mistakes)


class _Reader:
    """Replaces each `{ env = "NAME" }` and `{ file = "..." }` with its value, and remembers where that came from."""

    def __init__(self, *, environment: Mapping[str, str], folder: Path) -> None:
        self._environment = environment
        self._folder = folder
        self._origins: dict[str, str] = {}
        #: The values that could not be read, by place.
        self.mistakes: dict[str, str] = {}

    def origin(self, place: str) -> str:
        """The origin of the value at `place`, to append to a message. "" if the file itself holds the value."""
        origin = self._origins.get(place)
        return f" (given by {origin})" if origin else ""

    def with_urls(self, document: dict[str, Any]) -> dict[str, Any]:
        """Replace the document's URLs with those of the environment."""
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
        """Replace the references in a value and in everything below it."""
        if isinstance(value, list):
            return [self.resolve(item, (*where, str(number))) for number, item in enumerate(value)]
        if not isinstance(value, dict):
            return value
        place = ".".join(where)
        match value:  # the table of a merchant called `env` or `file` is no reference
            case {"env": str(variable), **others} if not others:
                self._origins[place] = f"the environment variable {variable}"
                if not self._environment.get(variable):
                    self.mistakes[place] = f"the environment variable {variable} is not set"
                return self._environment.get(variable, "").rstrip("\r\n")
            case {"file": str(name), **others} if not others:
                self._origins[place] = f"the file {name}"
                try:
                    return (self._folder / name).read_text(encoding="utf-8-sig").rstrip("\r\n")
                except OSError as error:
                    self.mistakes[place] = f"the secret's file cannot be read: {error}"
                except UnicodeDecodeError:  # its message quotes the secret
                    self.mistakes[place] = f"the secret's file cannot be read: {name} is not UTF-8"
                return ""
        return {key: self.resolve(item, (*where, key)) for key, item in value.items()}
