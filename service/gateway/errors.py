"""What can go wrong between us and the gateway's protocol."""

from dataclasses import dataclass
from enum import StrEnum


class GatewayError(Exception):
    """The root of this room's errors."""


class Refusal(StrEnum):
    """Why a callback was refused: constant words for logs and metrics, never shown to the caller."""

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
    MISSING_TOKEN = "missing-token"  # noqa: S105 - a word for a metric, not a secret
    MALFORMED_TOKEN = "malformed-token"  # noqa: S105
    UNKNOWN_TOKEN_KEY = "unknown-token-key"  # noqa: S105
    FORGED_TOKEN = "forged-token"  # noqa: S105
    TOKEN_OF_ANOTHER_ORDER = "token-of-another-order"  # noqa: S105


class CallbackRefused(GatewayError):
    """A callback cannot be taken: the one family that input from outside raises.

    `reason` is a constant word for logs and metrics. `detail` tells the operator what was found, where, and how to mend
    it; it quotes no values, and neither of the two belongs in the answer to the caller.
    """

    def __init__(self, reason: Refusal, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class TriedDialect:
    """One way in which a callback's fields may have been written before they were hashed."""

    #: How the body was read, see `bodies.py`.
    kind: str
    #: Name of the dialect, see `canonical.py`.
    dialect: str
    #: The text that is hashed. Holds gateway data: for an operator's eyes, not for logs.
    canonical: bytes
    #: md5 of it, lower-case hex.
    sign: str


class SignMismatch(CallbackRefused):
    """No known dialect gives the sign that came with the callback. `payment-callbacks sign explain` shows why."""

    def __init__(self, *, kind: str, claimed: str, tried: tuple[TriedDialect, ...], stopped_early: bool) -> None:
        limit = "; more are not tried on a body of its size" if stopped_early else ""
        super().__init__(
            Refusal.SIGN_MISMATCH,
            f"none of {len(tried)} ways of writing the fields gives the sign that was sent{limit}; "
            "keep the raw body and run `payment-callbacks sign explain` on it",
        )
        #: The reading that the body looks made for, of those that find a sign in it.
        self.kind = kind
        #: The sign that this reading finds, lower-case hex.
        self.claimed = claimed
        #: Everything it was compared with, in the order in which it was tried.
        self.tried = tried


class DialectInvalid(GatewayError):
    """A request dialect's setting is not one we know. The message names the setting and what it may be."""


class KeyUnusable(GatewayError):
    """A configured key does not fit its purpose. The message gives lengths and forms, never the key."""


class CipherError(GatewayError):
    """Args cannot be decrypted. The message says at which step it failed, never what the key or the text was."""


class RequestRefused(GatewayError):
    """A request's sign does not fit its envelope (what the sandbox answers with its own failure)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a message."""

    #: Path of the field, dotted (`biz_data.protocol_no`); "" for the message as a whole.
    field: str
    #: What was wrong and what is allowed; quotes no values.
    text: str

    def __str__(self) -> str:
        return f"{self.field}: {self.text}" if self.field else self.text


class MessageInvalid(GatewayError):
    """A request or an answer does not fit the document. Names each field, what was wrong and what is allowed."""

    def __init__(self, message: str, problems: tuple[Problem, ...]) -> None:
        super().__init__(f"{message}: {'; '.join(str(problem) for problem in problems)}")
        #: Everything that is wrong with it, in the order of the field names.
        self.problems = problems


class CallFailed(GatewayError):
    """A call to the gateway did not bring what was asked for. Which of its kinds it is says what may have been done."""

    #: The requestId to name when asking the gateway's people; "" where no request was made.
    request_id: str = ""


class NotSent(CallFailed):
    """Surely not done: the request never reached the gateway whole. It may be sent again."""


class ArgumentsInvalid(NotSent):
    """Surely not done: the arguments cannot be right, so nothing was sent. Names each field and what is allowed."""

    def __init__(self, error: MessageInvalid) -> None:
        super().__init__(str(error))
        #: Everything that is wrong; quotes no values.
        self.problems = error.problems


class Refused(CallFailed):
    """Not done, by the gateway's own word: it answered status -1 where no money can have moved."""


class OutcomeUnknown(CallFailed):
    """Nobody knows whether it was done: the request was sent, and no answer came that settles it.

    Ask with single-order-query. Never send a withhold again under another order number.
    """


class UrlUnusable(GatewayError):
    """The gateway's url is none."""


class PlainHttpRefused(GatewayError):
    """The gateway's URL is no https:// URL: its answers are not signed, so TLS is all that vouches for them."""


class CertificatesUnusable(GatewayError):
    """The gateway's ca_certificates are set and are none."""
