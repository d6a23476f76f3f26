"""Lags: the time from a payment (`paid_at`) until the final status of its order was known, as a histogram."""

from collections.abc import Mapping

#: The upper bounds of the histogram's buckets, in seconds. `paid_at` has whole seconds. The last bucket has no bound.
LAG_BOUNDS_SECONDS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)


def estimate_percentile(counts: Mapping[float, int], share: float) -> float | None:
    """Estimate the lag in seconds that this share (above 0, at most 1) of the orders had at most; None without orders.

    `counts` has the number of orders in each bucket, by its upper bound; a bucket that is missing is empty, and the
    last one's bound is infinity. Within a bucket, orders are taken to be spread evenly. What is beyond the highest
    finite bound is taken to be that bound.
    """
    wanted = share * sum(counts.values())
    lower = 0.0
    for upper in LAG_BOUNDS_SECONDS:
        count = counts.get(upper, 0)
        if count and wanted <= count:
            return lower + (upper - lower) * wanted / count
        wanted -= count
        lower = upper
    return lower if any(counts.values()) else None
