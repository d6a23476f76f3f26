"""Makes marshmallow schemas from dataclasses, so that a setting, or a field of a message, is declared once.

Each attribute of a section (a frozen dataclass) is a key of a table in the file. Its annotation chooses the marshmallow
field. `Annotated` adds validators, or another field: one that is made for the attribute (`ReadBy`), or a whole one. An
attribute without a default is required. A key that no attribute declares is an error. A union of sections is read into
the one whose `kind`, a `Literal`, the table names.
"""

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeVar, Union, get_args, get_origin, runtime_checkable

from marshmallow import Schema, ValidationError, fields, post_load, validate

#: A place in the file, such as `receiver.bind`, and what is wrong there.
Mistake = tuple[str, str]

Section = TypeVar("Section")

_SCALARS: Mapping[Any, Callable[..., fields.Field[Any]]] = {
    str: fields.String,
    int: fields.Integer,
    float: fields.Float,
}
#: In `Annotated`: the attribute is no key of the file.
NOT_A_KEY = object()
PositiveFloat = Annotated[float, validate.Range(min=0, min_inclusive=False)]
PositiveInteger = Annotated[int, validate.Range(min=1)]
#: The name of a merchant, an endpoint or a caller.
Slug = Annotated[
    str,
    validate.Regexp(
        r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?\Z", error="must be a slug: a-z, 0-9 and inner hyphens, at most 64"
    ),
]


@dataclasses.dataclass(frozen=True)
class ReadBy:
    """In `Annotated`: the marshmallow field that reads the attribute, where the annotation alone does not say it."""

    field: Callable[..., fields.Field[Any]]
    #: The key in the file, where the attribute has another name.
    key: str = ""


@runtime_checkable
class Checked(Protocol):
    """A section that checks its attributes against each other."""

    def find_mistakes(self) -> Iterable[Mistake]:
        """The mistakes, with their places relative to the section."""


class InvalidSection(ValueError):
    """A table of the file has mistakes."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__(mistakes)
        #: Every mistake, its place from the top of the file.
        self.mistakes = mistakes


def load_section(section: type[Section], table: Mapping[str, Any]) -> Section:
    """Make the section from a table of the file. Raises InvalidSection with every mistake in the table."""
    schema = make_schema(section)()
    try:
        loaded: Section = schema.load(table)
    except ValidationError as error:
        raise InvalidSection(list(_find_mistakes(error.messages, schema, table, ()))) from error
    return loaded


def make_schema(section: type, base: type["DataclassSchema"] | None = None, **overrides: Any) -> type[Schema]:
    """Make the schema of a section. It loads a table into an instance of the section.

    `overrides` replace fields, or attributes of `base`.
    """
    members = {"section": section, **_make_fields(section), **overrides}
    return type(section.__name__, (base or DataclassSchema,), members)


def _make_fields(section: type) -> dict[str, fields.Field[Any]]:
    made: dict[str, fields.Field[Any]] = {}
    for attribute in dataclasses.fields(section):
        read_by, annotation, validators = _unwrap(attribute.type)
        if NOT_A_KEY in validators:
            continue
        if whole := [note for note in validators if isinstance(note, fields.Field)]:
            (made[attribute.name],) = whole
            continue
        options: dict[str, Any] = {"validate": validators, "attribute": attribute.name}
        if attribute.default is attribute.default_factory is dataclasses.MISSING:
            options["required"] = True
        key = (read_by and read_by.key) or attribute.name
        made[key] = _make_field(read_by, annotation, options)
    return made


class FrozenSetField(fields.List[Any]):
    """Reads a list into a frozenset."""

    def _deserialize(self, *args: Any, **kwargs: Any) -> Any:
        return frozenset(super()._deserialize(*args, **kwargs))


class SectionByKind(fields.Field[Any]):
    """Reads a table into one of several sections, the one whose `kind` it names."""

    def __init__(self, *sections: type, **options: Any) -> None:
        super().__init__(**options)
        #: The schema of each section, by its kind.
        self.schemas: Mapping[str, Schema] = {_kind_of(section): make_schema(section)() for section in sections}
        keys = {key: field for section in sections for key, field in _make_fields(section).items()}
        kind = fields.String(required=True, validate=validate.OneOf(list(self.schemas)))
        #: Knows the keys of all sections and finds the mistakes of a table that names no known kind.
        self.schema = DataclassSchema.from_dict({**keys, "kind": kind})()

    def schema_of(self, table: Any) -> Schema:
        """The schema that reads the table."""
        kind = table.get("kind") if isinstance(table, Mapping) else None
        return self.schemas.get(kind, self.schema) if isinstance(kind, str) else self.schema

    def _deserialize(self, value: Any, *_args: Any, **_kwargs: Any) -> Any:
        schema = self.schema_of(value)
        # Which keys are required depends on the kind.
        return schema.load(value, partial=[*(schema.fields.keys() - {"kind"})] if schema is self.schema else None)


def _kind_of(section: type) -> str:
    (kind,) = (attribute.type for attribute in dataclasses.fields(section) if attribute.name == "kind")
    return str(get_args(kind)[0])


class DataclassSchema(Schema):
    """Loads into a dataclass, which may check its attributes against each other (`Checked`)."""

    section: ClassVar[type]

    class Meta:
        """Not found by name."""

        register = False

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Any:
        section = self.section(**data)
        if isinstance(section, Checked):
            messages: dict[str, list[str]] = {}
            for place, message in section.find_mistakes():
                messages.setdefault(place, []).append(message)
            if messages:
                raise ValidationError(messages)
        return section


def _unwrap(annotation: Any) -> tuple[ReadBy | None, Any, list[Any]]:
    """Split an annotation: the reader of the attribute, its type without `None` and `Annotated`, and its validators."""
    if get_origin(annotation) in (Union, UnionType) and NoneType in get_args(annotation):
        (annotation,) = (choice for choice in get_args(annotation) if choice is not NoneType)
    if get_origin(annotation) is not Annotated:
        return None, annotation, []
    annotation, *notes = get_args(annotation)
    read_by = next((note for note in notes if isinstance(note, ReadBy)), None)
    return read_by, annotation, [note for note in notes if not isinstance(note, ReadBy)]


def _make_field(read_by: ReadBy | None, annotation: Any, options: dict[str, Any]) -> fields.Field[Any]:
    if read_by:
        return read_by.field(**options)
    if get_origin(annotation) in (Union, UnionType):
        return SectionByKind(*get_args(annotation), **options)
    if get_origin(annotation) is Literal:
        return fields.String(**{**options, "validate": validate.OneOf(get_args(annotation))})
    inner = [_make_inner_field(argument) for argument in get_args(annotation)]
    match get_origin(annotation):
        case kind if kind is frozenset:
            return FrozenSetField(*inner, **options)
        case kind if kind is Sequence:
            return fields.List(*inner, **options)
        case kind if kind is Mapping:
            return fields.Dict(*inner, **options)
    if dataclasses.is_dataclass(annotation):
        return fields.Nested(make_schema(annotation), **options)  # type: ignore[arg-type]
    if annotation is bool:
        return fields.Boolean(truthy={True}, falsy={False}, **options)
    if issubclass(annotation, Enum):
        return fields.Enum(annotation, by_value=True, **options)
    return _SCALARS[annotation](**options)


def _make_inner_field(annotation: Any) -> fields.Field[Any]:
    read_by, annotation, validators = _unwrap(annotation)
    return _make_field(read_by, annotation, {"validate": validators})


def _find_mistakes(messages: Any, field: Any, value: Any, where: tuple[str, ...]) -> Iterator[Mistake]:
    """Flatten marshmallow's tree of messages about `value`. For an unknown key, name the nearest known one."""
    if not isinstance(messages, dict):
        for message in messages if isinstance(messages, list) else [messages]:
            yield ".".join(where), str(message)
        return
    by_kind: Mapping[str, Schema] = {}
    if isinstance(field, SectionByKind):
        by_kind, field = field.schemas, field.schema_of(value)
    elif isinstance(field, fields.Nested):
        field = field.schema
    for key, below in messages.items():
        place = (*where, str(key))
        if isinstance(field, fields.Dict):
            yield from _find_mistakes(below.get("key", []), None, key, place)
            yield from _find_mistakes(below.get("value", []), field.value_field, value[key], place)
        elif below == ["Unknown field."] and isinstance(field, Schema):
            near = difflib.get_close_matches(str(key), field.fields, n=1, cutoff=0.5)
            hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(sorted(field.fields))}"
            kinds = [kind for kind, schema in by_kind.items() if key in schema.fields]
            yield ".".join(place), f"belongs to kind {' or '.join(kinds)}" if kinds else f"unknown key; {hint}"
        elif key == "_schema":
            yield from _find_mistakes(below, None, value, where)
        elif isinstance(field, fields.List):
            yield from _find_mistakes(below, field.inner, value[key], place)
        else:
            below_field = field.fields.get(str(key)) if isinstance(field, Schema) else field
            below_value = value.get(key) if isinstance(value, Mapping) else None
            yield from _find_mistakes(below, below_field, below_value, place)
