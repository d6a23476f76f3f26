"""How the sandbox gateway behaves, as values. How they are read from a file: `settings_file.py`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from service.config.secrets import Secret
from service.config.settings import Acknowledgement
from service.sandbox.document_rules import STRICT, DocumentRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Somebody who may call the sandbox: what a real gateway hands out with its contract."""

    ua: str
    aes_key: Secret
    pay_types: frozenset[str]
    #: "yuan" or "fen".
    amount_unit: str = "yuan"
    #: Axes of `service.gateway.cipher.RequestDialect` that differ from its defaults.
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
    settle_seconds: float = 0.5
    #: The same for an order scripted as `slow`.
    slow_settle_seconds: float = 5.0
    #: How long a `stall` keeps the caller waiting for an answer.
    stall_seconds: float = 30.0
    #: The waits before a callback that was not acknowledged is sent again; then it is given up.
    repeat_after_seconds: Sequence[float] = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
    #: The longest wait for the receiver's answer to one callback.
    callback_timeout_seconds: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Misbehaviour:
    """What goes wrong, as shares from 0 (never) to 1 (always). Drawn per order from the seed."""

    #: Of callbacks: sent again although it was acknowledged.
    repeat_share: float = 0.0
    #: How often such a callback is sent again, at most.
    most_repeats: int = 3
    #: Of callbacks: held back for up to `most_delay_seconds`.
    delay_share: float = 0.0
    most_delay_seconds: float = 2.0
    #: Of orders: the `pending` or `initial` callback is sent after the terminal one.
    reorder_share: float = 0.0
    #: Of orders: no callback is ever sent.
    drop_share: float = 0.0
    #: Of orders: somebody else sends callbacks about it, correctly signed and false.
    forge_share: float = 0.0
    forgeries_per_order: int = 3
    #: Of orders: the callback itself says the opposite of what a query answers.
    lie_share: float = 0.0
    #: Of withholds: accepted, and the connection is closed without an answer.
    lose_answer_share: float = 0.0


class EmptyResponse(StrEnum):
    """What stands for `response` in an answer that has none: the document says that it is optional, and no more."""

    NULL = "null"
    LIST = "[]"
    OBJECT = "{}"
    STRING = '""'
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSettings:
    """Everything the sandbox is told."""

    accounts: Sequence[Account]
    bind: str = "127.0.0.1:8090"
    callback: CallbackStyle = CallbackStyle()
    timing: Timing = Timing()
    misbehaviour: Misbehaviour = Misbehaviour()
    #: The rules of the document that are enforced.
    strictness: frozenset[DocumentRule] = STRICT
    #: The empty responses of failures, used in turn.
    empty_responses: Sequence[EmptyResponse] = tuple(EmptyResponse)
    #: Of orders that no rule scripts: these fail.
    fail_share: float = 0.0
    #: What the receiver has to answer before a callback is not repeated.
    acknowledgement: Acknowledgement = field(default_factory=Acknowledgement)
    #: The code "sent to the card holder"; "" draws one per binding, to be read at /admin/bindings.
    verification_code: str = "123456"
    #: The message of a query for an order that is not there; cut to 250 characters unless `strictness` lets it pass.
    not_found_message: str = "订单不存在"
    #: The same seed and order numbers misbehave in the same way.
    seed: int = 1
    #: Orders, and as many bindings, kept in memory; further ones are answered with -1. Of requestIds, the last so many.
    max_entries: int = 100_000
    #: Callbacks under way at once.
    senders: int = 8
