"""The script of one order: its true status, the answer to its withhold, and its callbacks.

Keywords make the script. They come from a tester's rule, else from the order's number, else from its amount. Without
keywords, the shares in the settings decide.
"""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from service.sandbox.settings import SandboxSettings


class PayStatus(StrEnum):
    """`pay_status` as the gateway's document has it (3. 单笔代扣接口, 3. 单笔代扣结果查询接口, 5. 异步回调)."""

    INITIAL = "initial"
    PENDING = "pending"
    #: In a query's answer only.
    WAIT_PAY = "wait_pay"
    SUCCESS = "success"
    FAIL = "fail"

    @property
    def opposite(self) -> "PayStatus":
        """The terminal status that a false callback states instead."""
        return PayStatus.FAIL if self is PayStatus.SUCCESS else PayStatus.SUCCESS

    def outside_queries(self, *, strict: bool) -> "PayStatus":
        """The status for a withhold's answer or a callback. If `strict`, `wait_pay` becomes `pending`."""
        return PayStatus.PENDING if strict and self is PayStatus.WAIT_PAY else self


class AnswerMode(StrEnum):
    """How single-withhold is answered."""

    NORMAL = "normal"
    #: -1, and no order is made.
    REFUSED = "refused"
    #: -1, and the order is charged all the same.
    DENIED = "denied"
    #: Charged, and the connection is closed without an answer.
    LOST = "lost"
    #: Charged, and answered after any caller's time limit.
    STALLED = "stalled"
    #: Charged, and answered with HTTP 500.
    BROKEN = "broken"


class CallbackMode(StrEnum):
    """What the order's callbacks state."""

    NORMAL = "normal"
    #: There are none.
    SILENT = "silent"
    #: They contradict the true status.
    LYING = "lying"


class SettleSpeed(StrEnum):
    """When the order reaches its terminal status."""

    INSTANT = "instant"
    NORMAL = "normal"
    SLOW = "slow"
    #: Never.
    STUCK = "stuck"


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What will happen to one order."""

    ending: PayStatus = PayStatus.SUCCESS
    #: The status until then.
    waiting: PayStatus = PayStatus.PENDING
    speed: SettleSpeed = SettleSpeed.NORMAL
    #: Whether queries answer that there is no such order until it is terminal.
    unseen: bool = False
    answer: AnswerMode = AnswerMode.NORMAL
    callbacks: CallbackMode = CallbackMode.NORMAL


class UnknownWord(ValueError):
    """A rule names an unknown keyword."""


@dataclass(frozen=True, slots=True)
class Word:
    """A keyword."""

    text: str
    #: An amount that ends in these two digits means the same.
    amount_ending: str
    meaning: str
    #: Fields of a `Script`, each with its new value.
    changes: tuple[tuple[str, Any], ...]


#: All keywords. The help page lists them.
VOCABULARY = (
    Word("success", "50", "succeeds", (("ending", PayStatus.SUCCESS),)),
    Word("fail", "51", "fails, with a channel_response", (("ending", PayStatus.FAIL),)),
    Word("slow", "52", "stays pending for slow_settle_seconds", (("speed", SettleSpeed.SLOW),)),
    Word("stuck", "53", "never reaches a terminal status", (("speed", SettleSpeed.STUCK),)),
    Word("instant", "54", "is terminal in the withhold's own answer", (("speed", SettleSpeed.INSTANT),)),
    Word("initial", "55", "is `initial`, in callbacks too, until it is terminal", (("waiting", PayStatus.INITIAL),)),
    Word("waitpay", "56", "is `wait_pay` in queries until it is terminal", (("waiting", PayStatus.WAIT_PAY),)),
    Word("unseen", "57", "is not found by queries until it is terminal", (("unseen", True),)),
    Word("refuse", "61", "answered -1, no order is made", (("answer", AnswerMode.REFUSED),)),
    Word("deny", "62", "answered -1, and charged all the same", (("answer", AnswerMode.DENIED),)),
    Word("lost", "63", "charged; the connection is closed without an answer", (("answer", AnswerMode.LOST),)),
    Word("stall", "64", "charged; no answer for stall_seconds", (("answer", AnswerMode.STALLED),)),
    Word("broken", "65", "charged; answered with HTTP 500", (("answer", AnswerMode.BROKEN),)),
    Word("silent", "71", "no callback is ever sent", (("callbacks", CallbackMode.SILENT),)),
    Word("lie", "72", "callbacks say the opposite of the truth", (("callbacks", CallbackMode.LYING),)),
)

_BY_TEXT = {word.text: word for word in VOCABULARY}
_BY_ENDING = {word.amount_ending: word for word in VOCABULARY}
_NOT_LETTERS = re.compile(r"[^a-z]+")


@dataclass(frozen=True, slots=True)
class Rule:
    """A tester's rule: `words` alone make the script of orders whose number matches `pattern` (`*`, `?`)."""

    pattern: str
    words: tuple[str, ...]

    def __post_init__(self) -> None:
        for word in self.words:
            if word not in _BY_TEXT:
                raise UnknownWord(f"`{word}` is not a keyword of the sandbox; use some of {', '.join(_BY_TEXT)}")


def write_script(biz_order_no: str, amount: str, *, rules: Sequence[Rule], settings: SandboxSettings) -> Script:
    """Make the script of a new order. The same arguments give the same script."""
    for rule in rules:
        if fnmatchcase(biz_order_no, rule.pattern):
            return _follow(rule.words)
    words = [word for word in _NOT_LETTERS.split(biz_order_no.lower()) if word in _BY_TEXT]
    if words:
        return _follow(words)
    digits = re.sub(r"\D", "", amount)
    if digits[-2:] in _BY_ENDING:
        return _follow([_BY_ENDING[digits[-2:]].text])
    return _draw(random.Random(f"script/{settings.seed}/{biz_order_no}"), settings)  # noqa: S311 - a seeded draw


def _follow(words: Iterable[str]) -> Script:
    script = Script()
    for word in words:
        script = replace(script, **dict(_BY_TEXT[word].changes))
    return script


def _draw(draw: random.Random, settings: SandboxSettings) -> Script:
    odds = settings.misbehaviour
    script = Script()
    if draw.random() < settings.fail_share:
        script = replace(script, ending=PayStatus.FAIL)
    if draw.random() < odds.lose_answer_share:
        script = replace(script, answer=AnswerMode.LOST)
    if draw.random() < odds.drop_share:
        script = replace(script, callbacks=CallbackMode.SILENT)
    elif draw.random() < odds.lie_share:
        script = replace(script, callbacks=CallbackMode.LYING)
    return script
