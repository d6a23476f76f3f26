"""The callbacks of one order: when they are sent, what they state, and to which address. No I/O, no clock."""

import random
from dataclasses import dataclass
from enum import StrEnum

from service.sandbox.orders import SandboxOrder
from service.sandbox.script import CallbackMode, PayStatus
from service.sandbox.settings import Misbehaviour

#: Every payment number that a forger invents starts with this.
FORGED_PREFIX = "FORGED"


class Sender(StrEnum):
    """Who sends a callback."""

    #: The gateway, with the true status.
    GATEWAY = "gateway"
    #: The gateway, contradicting its answer to a query.
    LIAR = "liar"
    #: A forger. The sign is correct: it needs no secret.
    FORGER = "forger"


class Address(StrEnum):
    """Where a callback is sent."""

    #: The order's own notify_url.
    OWN = "own"
    #: The same without its last segment, which is the token.
    WITHOUT_TOKEN = "without-token"  # noqa: S105 - a word, not a secret
    #: The same with some of the token's characters changed.
    WRONG_TOKEN = "wrong-token"  # noqa: S105
    #: The notify_url of another order.
    OTHER_TOKEN = "other-token"  # noqa: S105


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCallback:
    """A callback that will be sent."""

    order: SandboxOrder
    sender: Sender
    address: Address
    pay_status: PayStatus
    pay_order_no: str
    #: After the order was accepted.
    delay_seconds: float
    #: How often it is sent again after it was acknowledged.
    repeats: int = 0


def plan_callbacks(
    order: SandboxOrder, *, odds: Misbehaviour, seed: int, strict_wait_pay: bool
) -> list[PlannedCallback]:
    """Plan every callback of `order`. The same arguments give the same plan.

    With `strict_wait_pay` a callback states `pending` instead of `wait_pay`, which the document has in queries only.
    """
    if not order.notify_url:
        return []
    draw = random.Random(f"plan/{seed}/{order.biz_order_no}")  # noqa: S311 - a seeded draw, not a secret
    waiting = order.script.waiting.outside_queries(strict=strict_wait_pay)
    planned = [] if order.script.callbacks is CallbackMode.SILENT else _genuine(order, waiting, odds, draw)
    if draw.random() < odds.forge_share:
        planned += [_forgery(order, draw) for _ in range(odds.forgeries_per_order)]
    return planned


def _genuine(order: SandboxOrder, waiting: PayStatus, odds: Misbehaviour, draw: random.Random) -> list[PlannedCallback]:
    """The gateway's own callbacks: `waiting` until the order is terminal, then its terminal status."""
    settle_seconds = _settle_seconds(order)
    waiting_delay = _held_back(0.0, odds, draw)
    reordered = draw.random() < odds.reorder_share
    callbacks = []
    if settle_seconds is not None:
        terminal_delay = _held_back(settle_seconds, odds, draw)
        if reordered:
            waiting_delay = max(waiting_delay, terminal_delay + draw.uniform(0.05, 0.5))
        lying = order.script.callbacks is CallbackMode.LYING
        status = order.script.ending.opposite if lying else order.script.ending
        sender = Sender.LIAR if lying else Sender.GATEWAY
        callbacks.append(_to_own(order, sender, status, terminal_delay, _repeats(odds, draw)))
    if settle_seconds != 0.0:
        callbacks.append(_to_own(order, Sender.GATEWAY, waiting, waiting_delay, _repeats(odds, draw)))
    return sorted(callbacks, key=lambda callback: callback.delay_seconds)


def _settle_seconds(order: SandboxOrder) -> float | None:
    return None if order.settles_at is None else (order.settles_at - order.accepted_at).total_seconds()


def _held_back(delay_seconds: float, odds: Misbehaviour, draw: random.Random) -> float:
    extra = draw.uniform(0.0, odds.max_delay_seconds)
    return delay_seconds + (extra if draw.random() < odds.delay_share else 0.0)


def _repeats(odds: Misbehaviour, draw: random.Random) -> int:
    repeats = draw.randint(1, max(1, odds.max_repeats))
    return repeats if draw.random() < odds.repeat_share else 0


def _to_own(
    order: SandboxOrder, sender: Sender, status: PayStatus, delay_seconds: float, repeats: int
) -> PlannedCallback:
    return PlannedCallback(
        order=order,
        sender=sender,
        address=Address.OWN,
        pay_status=status,
        pay_order_no=order.pay_order_no,
        delay_seconds=delay_seconds,
        repeats=repeats,
    )


def _forgery(order: SandboxOrder, draw: random.Random) -> PlannedCallback:
    """A callback with a false status, a false payment number or both, before or after the true callbacks."""
    false_number = f"{FORGED_PREFIX}{draw.getrandbits(48):015d}"
    status, number = draw.choice(
        [
            (order.script.ending.opposite, order.pay_order_no),
            (order.script.ending.opposite, false_number),
            (order.script.ending, false_number),
            (PayStatus.PENDING, false_number),
        ]
    )
    return PlannedCallback(
        order=order,
        sender=Sender.FORGER,
        address=draw.choice([Address.WITHOUT_TOKEN, Address.WRONG_TOKEN, Address.OTHER_TOKEN]),
        pay_status=status,
        pay_order_no=number,
        delay_seconds=draw.uniform(0.0, 2.0 * (_settle_seconds(order) or 1.0)),
    )
