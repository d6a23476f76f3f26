"""Exponential backoff: how long to wait before the next try."""

# 2 ** 63 seconds is more than any limit; larger exponents would only overflow.
_MAX_DOUBLINGS = 63


def exponential(attempt: int, *, first_seconds: float, max_seconds: float, jitter: float, random: float) -> float:
    """Seconds to wait after the failed try number `attempt` (1, 2, 3 ...): doubled each time, up to `max_seconds`.

    `jitter` (0 to 1) is the share of the wait that is random, and `random` a random number from 0 to below 1. With a
    jitter of 0.5 the result lies between half of the wait and all of it. It is never more than `max_seconds`.
    """
    doublings = min(max(attempt - 1, 0), _MAX_DOUBLINGS)
    wait = min(first_seconds * 2.0**doublings, max_seconds)
    return wait * (1 - jitter * random)
