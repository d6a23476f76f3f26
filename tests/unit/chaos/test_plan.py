"""The plan of a chaos run follows from its seed, and has the shares that it promises."""

import json
from collections import Counter

from tests.chaos.accountant import find_falsehood
from tests.chaos.plan import TOKEN_KEYS, Action, plan_faults, plan_orders, plan_sendings

_KILLED = ("worker", "master", "receiver", "ledger", "rabbitmq")
_FROZEN = ("ledger", "gateway")


def _sent(seed: int, callbacks: int) -> list[tuple[str, bytes, bool]]:
    sendings = plan_sendings(plan_orders(seed=seed, callbacks=callbacks), seed=seed, payments={})
    return [(sending.callback.path, sending.callback.body, sending.is_true) for sending in sendings]


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


def test_everybody_is_killed_equally_often_and_nobody_twice_at_once() -> None:
    faults = plan_faults(
        seed=7, sendings=1000, kills=60, killed=_KILLED, freezes=6, frozen=_FROZEN, replays=1, max_seconds=6.0
    )
    assert faults == plan_faults(
        seed=7, sendings=1000, kills=60, killed=_KILLED, freezes=6, frozen=_FROZEN, replays=1, max_seconds=6.0
    )
    killed = [fault.victims for fault in faults if fault.action is Action.KILL]
    frozen = [fault.victims for fault in faults if fault.action is Action.FREEZE]
    assert Counter(victim for victims in killed for victim in victims) == dict.fromkeys(_KILLED, 12)
    assert [fault.victims for fault in faults if fault.action is Action.REPLAY] == [("shop",)]
    assert Counter(frozen) == {("ledger",): 3, ("gateway",): 3}
    parts = [[victim in ("worker", "master", "receiver") for victim in victims] for victims in killed]
    assert any(len(victims) == 2 for victims in killed)
    assert max(map(sum, parts)) == 1
    assert [fault.after for fault in faults] == sorted(fault.after for fault in faults)
    assert 0 < faults[0].after < faults[-1].after < 1000


def test_the_accountant_tells_false_callbacks_from_true_ones_without_being_told() -> None:
    merchants = {name: {"token_keys": {"k1": key}} for name, key in TOKEN_KEYS.items()}
    sendings = plan_sendings(plan_orders(seed=7, callbacks=2000), seed=7, payments={})
    found: Counter[str] = Counter()
    for sending in sendings:
        callback = sending.callback
        falsehood = find_falsehood(callback.path, json.loads(callback.body), merchants[callback.merchant])
        assert bool(falsehood) != sending.is_true, (falsehood, callback)
        found[falsehood] += 1
    assert found.keys() == {"", "wrong sign", "wrong token", "no token"}
