"""What a probed gateway answered, in groups, and what each group must mean."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from service.gateway.channel import RawAnswer
from service.gateway.errors import OutcomeUnknown
from service.gateway.message_fields import to_text

# What differs from answer to answer and means nothing: request numbers, times, addresses in memory.
_VARYING = re.compile(r"[0-9a-fA-F]{16,}|[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9:.]+|[0-9]{10,}")
_LONGEST_MESSAGE = 250


@dataclass(frozen=True, slots=True, order=True)
class AnswerKind:
    """Answers that say the same."""

    http_status: int
    #: The answer's own `status`, as text; "" where it is no JSON object.
    status: str
    #: Its `message`, with `…` for what varies; for what is no JSON object, why.
    message: str


class Meaning(StrEnum):
    """What a group of answers was found to mean, in plain words."""

    SIGN_REFUSED = "the sign was refused: this is also the answer to a sign that is surely wrong"
    NOT_READ = "the args could not be read: this is also the answer to random bytes, or does not depend on the text"
    ORDER_MISSING = "the args were read, and the gateway misses an order number in them, as it should"
    NO_SUCH_ORDER = "the request was understood: there is no such order"
    SAME_FOR_ALL = "said to everything, also to a wrong sign: something before the sign is refused (ua, address, url)"
    UNDECIDED = "unclear: it is neither the answer to a wrong sign nor to random bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerGroup:
    """All answers of one kind."""

    kind: AnswerKind
    meaning: Meaning
    #: How many requests were answered so.
    requests: int
    #: What they had in common or were told apart by, at most a few: `sign_separator = "|"`.
    examples: Sequence[str]


def classify(answer: RawAnswer, *, own_words: Sequence[str]) -> AnswerKind:
    """The kind of an answer. `own_words` are those of the request, e.g. its order number, which it may repeat."""
    try:
        fields = answer.fields()
    except OutcomeUnknown as error:
        return AnswerKind(answer.status, "", str(error))
    message = to_text(fields.get("message"))
    for word in own_words:
        message = message.replace(word, "…")
    return AnswerKind(answer.status, to_text(fields.get("status")), _VARYING.sub("…", message)[:_LONGEST_MESSAGE])
