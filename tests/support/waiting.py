"""Bounded waits on a condition, in place of sleeps."""

import time
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

Answer = TypeVar("Answer")
Arguments = TypeVarTuple("Arguments")

#: The time limit of a wait. It catches what hangs, never what is slow: a start takes 2 s on a machine of its own, and
#: took more than 20 s on two cores with twenty others in line for them.
HANGS_AFTER_SECONDS = 150.0

_PAUSE_SECONDS = 0.02


def eventually(
    condition: Callable[[*Arguments], Answer],
    *arguments: *Arguments,
    within_seconds: float = HANGS_AFTER_SECONDS,
    why: Callable[[], object] | None = None,
) -> Answer:
    """Ask `condition` again and again until its answer is true, and return that answer. It is given `arguments`.

    An AssertionError of the condition counts as "not yet", so that it may hold plain asserts. When the time is up, that
    error is raised again; else an AssertionError that says what the last answer was, and what `why` says then.
    """
    deadline = time.monotonic() + within_seconds
    while True:
        failure: AssertionError | None = None
        answer: object = None
        try:
            answer = condition(*arguments)
            if answer:
                return answer
        except AssertionError as error:
            failure = error
        if time.monotonic() > deadline:
            if failure is not None:
                raise failure
            name = getattr(condition, "__name__", repr(condition))
            reason = f"\n{why()}" if why is not None else ""
            raise AssertionError(f"{name} was still {answer!r} after {within_seconds} s{reason}")
        time.sleep(_PAUSE_SECONDS)
