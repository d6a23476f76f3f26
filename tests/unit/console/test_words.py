"""The console has words for everything that the ledger can tell it."""

from collections.abc import Iterable, Mapping

import pytest

from service.console import words
from service.domain.claims import ClaimSource, IdentityField, OrderStatus, Trust
from service.domain.events import EventType
from service.domain.order_state import STATUS, Verdict
from service.gateway.bodies import BodyKind
from service.gateway.errors import Refusal
from service.ledger.attention import AttentionKind
from service.ledger.audit import Action
from service.ledger.dead_letters import DeadLetterAction
from service.ledger.endpoint_tests import EndpointTestState
from service.ledger.endpoints import DeliveryState
from service.ledger.inquiries import InquiryReason
from service.ledger.inquiry_questions import QuestionOutcome
from service.ledger.replays import ReplayState
from service.ledger.withholds import WithholdOutcome


@pytest.mark.parametrize(
    ("said", "values"),
    [
        (words.STATUSES, OrderStatus),
        (words.TRUSTS, Trust),
        (words.TRUSTS_IN_SHORT, Trust),
        (words.SOURCES, ClaimSource),
        (words.VERDICTS, Verdict),
        (words.VERDICTS_IN_SHORT, Verdict),
        (words.EVENTS, EventType),
        (words.REASONS, InquiryReason),
        (words.QUESTIONS, QuestionOutcome),
        (words.QUESTIONS_IN_SHORT, QuestionOutcome),
        (words.WITHHOLDS, WithholdOutcome),
        (words.CAUSES, AttentionKind),
        (words.KINDS, AttentionKind),
        (words.FIELDS, [STATUS, *IdentityField]),
        (words.REFUSALS, Refusal),
        (words.DELIVERY_STATES, DeliveryState),
        (words.REPLAY_STATES, ReplayState),
        (words.TEST_STATES, EndpointTestState),
        (words.DEAD_LETTER_ACTIONS, DeadLetterAction),
        (words.ACTIONS, Action),
        (words.BODY_KINDS, BodyKind),
    ],
)
def test_there_are_words_for_every_value(said: Mapping[object, object], values: Iterable[object]) -> None:
    assert set(said) == set(values)
