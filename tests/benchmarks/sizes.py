"""How much is measured."""

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Counts of callbacks, orders and rounds; `make bench` takes these."""

    rounds: int = 7
    #: Of each turn of a receiver.
    seconds: float = 10
    #: Claims that our ledger records in one turn; a peer that is slower gets fewer.
    claims: int = 20_000
    claims_one_by_one: int = 3_000
    claims_in_plain_batches: int = 50_000
    #: Events that our dispatcher delivers in one turn.
    events: int = 20_000
    events_one_by_one: int = 2_000
    #: The same where the webhook answers after 20 ms, if that has a turn.
    slow_webhook: bool = True
    events_slow: int = 4_000
    events_one_by_one_slow: int = 500
    few_orders: int = 10_000
    many_orders: int = 5_000_000
    first_callbacks: int = 50_000
    all_callbacks: int = 500_000
    backlog: int = 1_000_000
    callbacks_per_second: int = 100
    latency_seconds: float = 60

    def quick(self) -> "Sizes":
        """For `make bench-quick`."""
        return replace(
            self,
            rounds=2,
            seconds=2,
            claims=3_000,
            claims_one_by_one=500,
            claims_in_plain_batches=10_000,
            events=5_000,
            events_one_by_one=400,
            slow_webhook=False,
        )

    def scaled(self, factor: float) -> "Sizes":
        """For trying a benchmark out: every count of claims, events, orders and callbacks by so much."""
        kept = ("rounds", "seconds", "slow_webhook", "callbacks_per_second")
        names = [name for name in self.__slots__ if name not in kept]
        scaled: dict[str, Any] = {name: max(10, int(getattr(self, name) * factor)) for name in names}
        return replace(self, **scaled)
