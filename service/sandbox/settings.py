"""How the sandbox gateway behaves: every setting of its TOML file, and reading that file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from marshmallow import fields, validate

from service.config.reading import SettingsError, describe_mistakes, parse_toml
from service.config.schema import InvalidSection, PositiveFloat, ReadBy, load_section
from service.config.secrets import SecretText
from service.sandbox.document_rules import STRICT, DocumentRule

_SHARE = validate.Range(min=0, max=1)
_NOT_NEGATIVE = validate.Range(min=0)
_NOT_EMPTY = validate.Length(min=1)


class _StrictnessField(fields.Dict):
    """Reads a table of switches, one per rule. A rule that it does not name is as in `STRICT`."""

    def __init__(self, **options: Any) -> None:
        rule, switch = fields.Enum(DocumentRule, by_value=True), fields.Boolean(truthy={True}, falsy={False})
        super().__init__(rule, switch, **options)

    def _deserialize(self, *args: Any, **kwargs: Any) -> Any:
        switches = super()._deserialize(*args, **kwargs)  # type: ignore[no-untyped-call]
        return frozenset(rule for rule in DocumentRule if switches.get(rule, rule in STRICT))


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A caller of the sandbox: what a real gateway hands out with its contract."""

    ua: Annotated[str, _NOT_EMPTY]
    aes_key: SecretText
    pay_types: Annotated[frozenset[str], _NOT_EMPTY]
    amount_unit: Annotated[str, validate.OneOf(["yuan", "fen"])] = "yuan"
    #: Attributes of `service.gateway.cipher.RequestDialect` that differ from their defaults.
    dialect: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackStyle:
    """How callbacks are written and signed."""

    #: The JSON dialect that is signed, by its name in `service.gateway.signature`.
    signed_as: str = "php"
    #: The JSON writer of the body, by its name in `service.gateway.json_dialects`; "" for the one of `signed_as`.
    sent_as: str = ""
    #: Send a form instead of JSON.
    form: bool = False
    upper_case_sign: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long things take."""

    #: From a withhold's acceptance to its terminal status.
    settle_seconds: Annotated[float, _NOT_NEGATIVE] = 0.5
    #: The same for an order scripted as `slow`.
    slow_settle_seconds: Annotated[float, _NOT_NEGATIVE] = 5.0
    #: How long a `stall` keeps the caller waiting for an answer.
    stall_seconds: Annotated[float, _NOT_NEGATIVE] = 30.0
    #: The waits before an unacknowledged callback is sent again. After the last one it is given up.
    repeat_after_seconds: Sequence[Annotated[float, _NOT_NEGATIVE]] = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
    #: The longest wait for the receiver's answer to one callback.
    callback_timeout_seconds: PositiveFloat = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Misbehaviour:
    """What goes wrong, as shares from 0 (never) to 1 (always). Drawn per order from the seed."""

    #: Of callbacks: sent again although they were acknowledged.
    repeat_share: Annotated[float, _SHARE] = 0.0
    #: How often such a callback is sent again, at most.
    max_repeats: Annotated[int, validate.Range(min=1, max=1000)] = 3
    #: Of callbacks: held back for up to `max_delay_seconds`.
    delay_share: Annotated[float, _SHARE] = 0.0
    max_delay_seconds: Annotated[float, _NOT_NEGATIVE] = 2.0
    #: Of orders: the `pending` or `initial` callback is sent after the terminal one.
    reorder_share: Annotated[float, _SHARE] = 0.0
    #: Of orders: no callback is ever sent.
    drop_share: Annotated[float, _SHARE] = 0.0
    #: Of orders: a forger sends false callbacks, correctly signed.
    forge_share: Annotated[float, _SHARE] = 0.0
    forgeries_per_order: Annotated[int, validate.Range(min=1, max=1000)] = 3
    #: Of orders: the gateway's own callback contradicts its answer to a query.
    lie_share: Annotated[float, _SHARE] = 0.0
    #: Of withholds: accepted, and the connection is closed without an answer.
    lose_answer_share: Annotated[float, _SHARE] = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """The answer that acknowledges a callback, so that it is not repeated."""

    body: str = "success"


class EmptyResponse(StrEnum):
    """What an answer without a `response` has in its place. The document only says that it is optional."""

    NULL = "null"
    LIST = "[]"
    OBJECT = "{}"
    STRING = '""'
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSettings:
    """All settings of the sandbox."""

    accounts: Annotated[Sequence[Account], _NOT_EMPTY]
    bind: Annotated[str, validate.Regexp(r".+:[0-9]{1,5}\Z", error="must be host:port")] = "127.0.0.1:8090"
    callback: CallbackStyle = CallbackStyle()
    timing: Timing = Timing()
    misbehaviour: Misbehaviour = Misbehaviour()
    #: The rules of the document that are enforced.
    strictness: Annotated[frozenset[DocumentRule], ReadBy(_StrictnessField)] = STRICT
    #: The empty responses of failures, used in turn.
    empty_responses: Annotated[Sequence[EmptyResponse], _NOT_EMPTY] = tuple(EmptyResponse)
    #: The share that fails of the orders without a script.
    fail_share: Annotated[float, _SHARE] = 0.0
    acknowledgement: Acknowledgement = Acknowledgement()
    #: The code that is "sent to the card holder". "" draws one per binding; /admin/bindings shows it.
    verification_code: str = "123456"
    #: The message for a query of an unknown order. Cut to 250 characters if `strictness` demands it.
    not_found_message: Annotated[str, _NOT_EMPTY] = "订单不存在"
    #: The same seed and order numbers give the same misbehaviour.
    seed: int = 1
    #: The most orders and the most bindings in memory; further ones are answered -1. Also how many requestIds are kept.
    max_entries: Annotated[int, validate.Range(min=1, max=1_000_000)] = 100_000
    #: The most callbacks that are sent at once.
    senders: Annotated[int, validate.Range(min=1, max=256)] = 8


def load_sandbox_settings(path: Path) -> SandboxSettings:
    """The settings in the TOML file at `path`. Raises SettingsError with a line per mistake."""
    try:
        document = parse_toml(path.read_text(encoding="utf-8-sig"), name=str(path))
        return load_section(SandboxSettings, document)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    except InvalidSection as error:
        raise SettingsError(describe_mistakes(error.mistakes, name=str(path))) from error
