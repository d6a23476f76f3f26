"""What a run does: which callbacks are sent in which order, and who is killed or frozen when. It follows from the seed.

Two merchants: `debit` believes callbacks to an order's own notify_url; `asked` believes nobody but the gateway.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from itertools import cycle, islice, pairwise

from tests.support.callbacks import Callback, mint_token, php

TOKEN_KEYS = {name: f"the token key of {name}, for chaos only" for name in ("debit", "asked")}
PAY_TYPES = {"debit": "baofoo_001", "asked": "sandbox_001"}

#: The order numbers of `debit` begin with it.
DEBIT_PREFIX = "DK/"
#: Of the true callbacks: sent again after they were taken.
REPEATED = 0.2
#: Of the orders: the terminal callback comes first.
REORDERED = 0.2
#: Of all callbacks.
TAMPERED = 0.02
_ASKED = 0.15
# What the sandbox does with an order whose number has these words; the last one is how it ends.
_GATEWAYS_WORDS = ("success", "success", "fail", "waitpay-success", "slow-fail", "unseen-success")
# Of the receiver.
_PARTS = ("worker", "master")
_OPPOSITE = {"pending": "success", "success": "fail", "fail": "success"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedOrder:
    """One order, and what its callbacks say, in the order in which they are sent."""

    merchant: str
    biz_order_no: str
    #: How it ends at the gateway; "" where it stays pending.
    end: str
    #: Each is a `pay_status`. None: the gateway has to be asked.
    callbacks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """A callback that is sent once more: until it is acknowledged or, where it is false, until it is answered."""

    callback: Callback
    is_true: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Withhold:
    """An order of `asked` that the API is requested to send, until it says that it has done so or may have."""

    biz_order_no: str


def plan_orders(*, seed: int, callbacks: int) -> list[PlannedOrder]:
    """As many orders as it takes to have that many callbacks, with the tampered ones."""
    draw = random.Random(f"orders/{seed}")
    left = callbacks - round(callbacks * TAMPERED)
    orders: list[PlannedOrder] = []
    while left > 0:
        order = _draw_order(draw, f"{seed}-{len(orders):06d}")
        orders.append(replace(order, callbacks=order.callbacks[:left]))
        left -= len(order.callbacks)
    return orders


def _draw_order(draw: random.Random, number: str) -> PlannedOrder:
    kind = draw.random()
    said: tuple[str, ...]
    if draw.random() < _ASKED:
        words = draw.choice(_GATEWAYS_WORDS)
        end = words.rpartition("-")[2]
        # Some are never called back, and of some the gateway's own callback is false.
        said = () if kind < 0.1 else ("pending", _OPPOSITE[end] if kind < 0.2 else end)
        return PlannedOrder(
            merchant="asked", biz_order_no=f"ASK/{number} 单-{words}", end=end, callbacks=_reorder(said, draw)
        )
    end = draw.choice(("success", "success", "success", "fail"))
    said = ("pending",) if kind < 0.04 else (end,) if kind < 0.1 else ("pending", end)
    end = "" if said == ("pending",) else end
    return PlannedOrder(
        merchant="debit", biz_order_no=f"{DEBIT_PREFIX}{number} 单", end=end, callbacks=_reorder(said, draw)
    )


def _reorder(said: tuple[str, ...], draw: random.Random) -> tuple[str, ...]:
    return said[::-1] if draw.random() < REORDERED else said


def payment_of(biz_order_no: str) -> str:
    """The gateway's payment number of an order."""
    return f"P-{biz_order_no}"


def plan_sendings(orders: Sequence[PlannedOrder], *, seed: int) -> list[Sending | Withhold]:
    """Every sending, in order."""
    draw = random.Random(f"sendings/{seed}")
    # Orders overlap: what is said of one comes between what is said of others.
    timed: list[tuple[float, Sending | Withhold]] = []
    for number, order in enumerate(orders):
        due = float(number)
        if order.merchant == "asked":
            withhold = Withhold(biz_order_no=order.biz_order_no)
            timed.append((due, withhold))
            if draw.random() < REPEATED:
                timed.append((due + draw.uniform(0, 30), withhold))
        for pay_status in order.callbacks:
            due += draw.uniform(0, 30)
            callback = _callback(order, pay_status)
            timed.append((due, Sending(callback=callback, is_true=True)))
            if draw.random() < REPEATED:
                timed.append((due + draw.uniform(0, 300), Sending(callback=callback, is_true=True)))
    true = sum(len(order.callbacks) for order in orders)
    for callback in islice(_tamper(orders, draw), round(true * TAMPERED / (1 - TAMPERED))):
        timed.append((draw.uniform(0, len(orders)), Sending(callback=callback, is_true=False)))
    return [sending for _, sending in sorted(timed, key=lambda pair: pair[0])]


def _callback(order: PlannedOrder, pay_status: str, *, payment: str = "") -> Callback:
    return Callback(
        merchant=order.merchant,
        biz_order_no=order.biz_order_no,
        pay_status=pay_status,
        token=_token(order.merchant, order.biz_order_no),
        changes={"pay_order_no": payment or payment_of(order.biz_order_no), "pay_type": PAY_TYPES[order.merchant]},
    )


def _token(merchant: str, biz_order_no: str) -> str:
    return mint_token(kid="k1", key=TOKEN_KEYS[merchant], merchant=merchant, biz_order_no=biz_order_no)


def _tamper(orders: Sequence[PlannedOrder], draw: random.Random) -> Iterator[Callback]:
    """False callbacks, one for each order, in every way in turn. Each states what no true callback does."""
    ways = ("status", "payment", "sign", "other token", "cut token", "no token", "invented")
    for (order, other), way in zip(pairwise(draw.sample(orders, len(orders))), cycle(ways), strict=False):
        status = _OPPOSITE[order.end or "pending"]
        forged = f"FORGED-{draw.getrandbits(32)}"
        false = _callback(order, status, payment=forged)
        true = _callback(order, order.end or "pending")
        match way:
            case "status":  # changed after it was signed, as in the next two ways
                yield replace(true, sent_by=partial(_write_changed, "pay_status", status))
            case "payment":
                yield replace(true, sent_by=partial(_write_changed, "pay_order_no", forged))
            case "sign":
                yield replace(false, sent_by=partial(_write_changed, "sign", "0" * 32))
            case "other token":
                yield replace(false, token=_token(order.merchant, other.biz_order_no))
            case "cut token":
                yield replace(false, token=false.token[:-1])
            case "no token":
                yield replace(false, token="")
            case "invented":
                yield replace(false, biz_order_no=f"{order.biz_order_no}-invented", token="")


def _write_changed(field: str, value: str, fields: Mapping[str, str]) -> str:
    return php({**fields, field: value})


class Action(StrEnum):
    """What is done."""

    KILL = "kill"
    FREEZE = "freeze"
    #: An operator has everything so far delivered to an endpoint again.
    REPLAY = "replay"
    #: The machine of all roles loses its power, and what has not reached its disk.
    POWER_CUT = "power cut"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that happens once so many sendings have ended."""

    after: int
    action: Action
    #: Several at once, if it is a kill; of a replay, the endpoint.
    victims: tuple[str, ...]
    #: For how long they are away or frozen.
    seconds: float


def plan_faults(
    *,
    seed: int,
    sendings: int,
    kills: int,
    killed: Sequence[str],
    freezes: int,
    frozen: Sequence[str],
    replays: int,
    power_cuts: int,
    max_seconds: float,
) -> list[Fault]:
    """Kill each of `killed` equally often, sometimes two at once, and freeze those of `frozen`, evenly over the run.

    The last quarter of the sendings is left alone.
    """
    draw = random.Random(f"faults/{seed}")
    faults: list[tuple[Action, tuple[str, ...]]] = []
    victims = _draw_all(killed, kills, draw)
    while victims:
        # Nobody dies twice at once, and the receiver's parts die one at a time.
        pair = {"receiver" if victim in _PARTS else victim for victim in victims[:2]}
        dying = victims[:2] if len(pair) == 2 and draw.random() < 0.2 else victims[:1]
        faults.append((Action.KILL, tuple(dying)))
        del victims[: len(dying)]
    others = [(Action.FREEZE, victim) for victim in _draw_all(frozen, freezes, draw)]
    others += [(Action.REPLAY, "shop")] * replays + [(Action.POWER_CUT, "")] * power_cuts
    for action, victim in others:
        faults.insert(draw.randrange(len(faults) + 1), (action, (victim,)))
    return [
        Fault(
            after=int(0.75 * sendings * (number + draw.uniform(0.2, 0.8)) / len(faults)),
            action=action,
            victims=victims_of_one,
            seconds=draw.uniform(0.5, max_seconds) if action is Action.FREEZE else draw.uniform(0, max_seconds / 3),
        )
        for number, (action, victims_of_one) in enumerate(faults)
    ]


def _draw_all(names: Sequence[str], count: int, draw: random.Random) -> list[str]:
    """Each equally often, as far as the count allows, in any order."""
    drawn: list[str] = []
    while len(drawn) < count:
        drawn += draw.sample(names, len(names))
    return drawn[:count]
