"""Totals: what a role's metrics have gained is added to the ledger at intervals, for charts over hours and days.

Counting costs a role nothing more than its metrics do. What a process has counted since the last time is lost when it
is killed; when it is stopped, it is added at the end.
"""

import threading
import uuid
from collections import Counter
from contextlib import AbstractContextManager

from prometheus_client import CollectorRegistry

from consumers.threads import repeated
from service.ledger.totals import LABELS, Counted, Series, TotalsStore

#: How far behind the charts are.
EVERY_SECONDS = 10.0
#: A role that is stopped waits this long for what it has counted last.
_LAST_SECONDS = 2.0
#: Old totals are looked for every five minutes.
_ROUNDS_PER_REMOVAL = 30
# The samples that are added, and what becomes of their labels whose names are others.
_SERIES = {
    "payment_callbacks_claims_recorded_total": Series.CLAIMS,
    "payment_callbacks_final_status_seconds_bucket": Series.LAGS,
    "payment_callbacks_deliveries_total": Series.DELIVERIES,
    "payment_callbacks_inquiries_asked_total": Series.QUESTIONS,
}
_LABELS = {"verdict": "outcome", "le": "outcome"} | {name: name for name in LABELS}


def adding_totals(
    store: TotalsStore, *, registry: CollectorRegistry, every_seconds: float = EVERY_SECONDS
) -> AbstractContextManager[None]:
    """Add what the metrics in `registry` gain to the totals while the `with` lasts, and once more at its end."""
    process = uuid.uuid4().hex
    added: Counter[Counted] = Counter()
    rounds = 0

    def add(over: threading.Event) -> None:
        nonlocal rounds
        counted = count(registry)
        if gains := counted - added:
            store.add(gains, process=process)
            added.update(gains)
        if rounds % _ROUNDS_PER_REMOVAL == 0 and not over.is_set():
            store.remove_old()
        rounds += 1

    return repeated(
        add, name="totals", every_seconds=every_seconds, failure="totals_not_added", once_more_seconds=_LAST_SECONDS
    )


def count(registry: CollectorRegistry) -> Counter[Counted]:
    """What the metrics have counted since the process began; an observation of a histogram is in one bucket."""
    counted: Counter[Counted] = Counter()
    for metric in registry.restricted_registry(_SERIES).collect():
        below = 0
        for sample in metric.samples:
            value = int(sample.value)
            if "le" in sample.labels:
                # Each bucket includes those below it, and they come in their order, up to the infinite one.
                value, below = value - below, 0 if sample.labels["le"] == "+Inf" else value
            labels = {_LABELS[name]: label for name, label in sample.labels.items()}
            counted[Counted(_SERIES[sample.name], **labels)] += value
    return counted
