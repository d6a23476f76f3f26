"""The errors of the gateway's protocol."""

from dataclasses import dataclass
from enum import StrEnum


class GatewayError(Exception):
    """The root of this package's errors."""


class Refusal(StrEnum):
    """Why a callback was refused: a constant for logs and metrics, never shown to the caller."""

    COMPRESSED = "compressed"
    BAD_UTF8 = "bad-utf8"
    NOT_JSON = "not-json"
    NOT_AN_OBJECT = "not-an-object"
    NOT_A_FORM = "not-a-form"
    NOT_MULTIPART = "not-multipart"
    FILE_IN_FORM = "file-in-form"
    WRAPPED_TWICE = "wrapped-twice"
    DUPLICATE_KEY = "duplicate-key"
    NAN = "nan"
    HUGE_NUMBER = "huge-number"
    TOO_DEEP = "too-deep"
    TOO_MANY_VALUES = "too-many-values"
    MISSING_SIGN = "missing-sign"
    MALFORMED_SIGN = "malformed-sign"
    DEGENERATE_SIGN = "degenerate-sign"
    SIGN_MISMATCH = "sign-mismatch"
    AMBIGUOUS = "ambiguous"
    MISSING_FIELD = "missing-field"
    INVALID_FIELD = "invalid-field"
    MISSING_TOKEN = "missing-token"  # noqa: S105 - a metric's label, not a secret
    MALFORMED_TOKEN = "malformed-token"  # noqa: S105
    UNKNOWN_TOKEN_KEY = "unknown-token-key"  # noqa: S105
    FORGED_TOKEN = "forged-token"  # noqa: S105
    TOKEN_OF_ANOTHER_ORDER = "token-of-another-order"  # noqa: S105


class CallbackRefused(GatewayError):
    """A callback cannot be accepted. Input from outside raises this error or a subclass, and no other.

    `reason` is for logs and metrics. `detail` tells the operator what was found, where, and how to fix it; it quotes no
    values. Neither belongs in the response to the caller.
    """

    def __init__(self, reason: Refusal, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class TriedDialect:
    """One text that was hashed and gave another sign than the callback's."""

    #: How the body was read, see `bodies.BodyKind`.
    kind: str
    #: How the text was written, see `signature.CanonicalText`.
    dialect: str
    #: The text that was hashed. It holds gateway data: show it to operators, do not log it.
    canonical: bytes
    #: md5 of it, lower-case hex.
    sign: str


class SignMismatch(CallbackRefused):
    """No known dialect gives the callback's sign. `payment-callbacks sign explain` shows why."""

    def __init__(self, *, kind: str, received_sign: str, tried: tuple[TriedDialect, ...], stopped_early: bool) -> None:
        limit = "; more are not tried on a body of its size" if stopped_early else ""
        super().__init__(
            Refusal.SIGN_MISMATCH,
            f"none of {len(tried)} ways of writing the fields gives the sign that was sent{limit}; "
            "keep the raw body and run `payment-callbacks sign explain` on it",
        )
        #: The likeliest of the readings that find a sign in the body.
        self.kind = kind
        #: The sign in this reading, lower-case hex.
        self.received_sign = received_sign
        #: Everything that was tried, in order, in all readings.
        self.tried = tried


class DialectInvalid(GatewayError):
    """A setting of a dialect is not known. The message names the setting and what it may be."""


class KeyUnusable(GatewayError):
    """A configured key does not fit its purpose. The message gives lengths and formats, never the key."""


class CipherError(GatewayError):
    """Args cannot be decrypted. The message says which step failed, and never quotes the key or the text."""


class RequestRefused(GatewayError):
    """A request's sign does not fit its envelope. Only the sandbox verifies requests."""


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One invalid field of a message."""

    #: Dotted path of the field (`biz_data.protocol_no`); "" for the whole message.
    field: str
    #: What is wrong and what is allowed. Quotes no values.
    text: str

    def __str__(self) -> str:
        return f"{self.field}: {self.text}" if self.field else self.text


class MessageInvalid(GatewayError):
    """A request or an answer does not fit the document. Names each invalid field, what is wrong and what is allowed."""

    def __init__(self, message: str, problems: tuple[FieldProblem, ...]) -> None:
        super().__init__(f"{message}: {'; '.join(str(problem) for problem in problems)}")
        #: In the order of the field names.
        self.problems = problems


class CallFailed(GatewayError):
    """A call to the gateway failed. The subclass says whether it may have been done."""

    #: The requestId to give to the gateway's support; "" if no request was made.
    request_id: str = ""


class NotSent(CallFailed):
    """Surely not done: the gateway never had the whole request. It may be sent again."""


class ArgumentsInvalid(NotSent):
    """Surely not done: the arguments are invalid, so nothing was sent. Names each field and what is allowed."""

    def __init__(self, error: MessageInvalid) -> None:
        super().__init__(str(error))
        #: As in `MessageInvalid`.
        self.problems = error.problems


class Refused(CallFailed):
    """Not done: the gateway answered status -1 to a method that moves no money."""


class OutcomeUnknown(CallFailed):
    """It is unknown whether it was done: the request was sent, and no conclusive answer came.

    Query the order with single-order-query. Never send a withhold again under another order number.
    """


class WithholdRefused(OutcomeUnknown):
    """The gateway answered status -1 to a withhold. That proves nothing: some gateways charge all the same."""

    def __init__(self, text: str, *, message: str) -> None:
        super().__init__(text)
        #: The gateway's message, whole and unmasked. Do not log it.
        self.message = message


class UrlUnusable(GatewayError):
    """The gateway's url is not a usable URL."""


class PlainHttpRefused(GatewayError):
    """The gateway's URL is not an https:// URL. Answers are not signed, so only TLS authenticates them."""


class CertificatesUnusable(GatewayError):
    """The gateway's ca_certificates setting holds no certificates."""
