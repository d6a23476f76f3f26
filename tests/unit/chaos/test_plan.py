"""The plan of a chaos run follows from its seed, and has the shares that it promises."""

import json
from collections import Counter

from tests.chaos.accountant import find_falsehood
from tests.chaos.plan import TOKEN_KEYS, Action, Sending, Withhold, plan_faults, plan_orders, plan_sendings

_KILLED = ("worker", "master", "receiver", "ledger", "rabbitmq")
_FROZEN = ("ledger", "gateway")


def _sent(seed: int, callbacks: int) -> list[tuple[str, bytes, bool]]:
    sendings = plan_sendings(plan_orders(seed=seed, callbacks=callbacks), seed=seed)
    return [(one.callback.path, one.callback.body, one.is_true) for one in sendings if isinstance(one, Sending)]


def test_the_same_seed_gives_the_same_callbacks_and_another_gives_others() -> None:
    assert _sent(7, 500) == _sent(7, 500)
    assert _sent(7, 500) != _sent(8, 500)


def test_callbacks_are_repeated_reordered_and_tampered_with_as_often_as_promised() -> None:
    orders = plan_orders(seed=7, callbacks=10_000)
    sent = _sent(7, 10_000)
    assert len({(path, body) for path, body, _ in sent}) == 10_000
    false = {(path, body) for path, body, is_true in sent if not is_true}
    assert len(false) == 200
    assert 0.18 < (len(sent) - 10_000) / 9_800 < 0.22
    pairs = [order.callbacks for order in orders if len(order.callbacks) == 2]
    assert 0.18 < sum(pair[1] == "pending" for pair in pairs) / len(pairs) < 0.22


def test_each_order_of_the_gateway_is_withheld_and_some_requests_are_repeated() -> None:
    orders = plan_orders(seed=7, callbacks=10_000)
    sendings = plan_sendings(orders, seed=7)
    requested = Counter(one.biz_order_no for one in sendings if isinstance(one, Withhold))
    assert requested.keys() == {order.biz_order_no for order in orders if order.merchant == "asked"}
    assert 0.15 < (requested.total() - len(requested)) / len(requested) < 0.25


def test_everybody_is_killed_equally_often_and_nobody_twice_at_once() -> None:
    faults = plan_faults(
        seed=7,
        sendings=1000,
        kills=60,
        killed=_KILLED,
        freezes=6,
        frozen=_FROZEN,
        replays=1,
        power_cuts=2,
        max_seconds=6.0,
    )
    assert faults == plan_faults(
        seed=7,
        sendings=1000,
        kills=60,
        killed=_KILLED,
        freezes=6,
        frozen=_FROZEN,
        replays=1,
        power_cuts=2,
        max_seconds=6.0,
    )
    killed = [fault.victims for fault in faults if fault.action is Action.KILL]
    frozen = [fault.victims for fault in faults if fault.action is Action.FREEZE]
    assert Counter(victim for victims in killed for victim in victims) == dict.fromkeys(_KILLED, 12)
    assert [fault.victims for fault in faults if fault.action is Action.REPLAY] == [("shop",)]
    assert sum(fault.action is Action.POWER_CUT for fault in faults) == 2
    assert Counter(frozen) == {("ledger",): 3, ("gateway",): 3}
    parts = [[victim in ("worker", "master", "receiver") for victim in victims] for victims in killed]
    assert any(len(victims) == 2 for victims in killed)
    assert max(map(sum, parts)) == 1
    assert [fault.after for fault in faults] == sorted(fault.after for fault in faults)
    assert 0 < faults[0].after < faults[-1].after < 750


def test_the_accountant_tells_false_callbacks_from_true_ones_without_being_told() -> None:
    merchants = {name: {"token_keys": {"k1": key}} for name, key in TOKEN_KEYS.items()}
    sendings = plan_sendings(plan_orders(seed=7, callbacks=2000), seed=7)
    found: Counter[str] = Counter()
    for sending in sendings:
        if isinstance(sending, Withhold):
            continue
        callback = sending.callback
        falsehood = find_falsehood(callback.path, json.loads(callback.body), merchants[callback.merchant])
        assert bool(falsehood) != sending.is_true, (falsehood, callback)
        found[falsehood] += 1
    assert found.keys() == {"", "wrong sign", "wrong token", "no token"}
