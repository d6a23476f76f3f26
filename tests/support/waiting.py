"""Bounded waits on a condition, in place of sleeps."""

import time
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

Answer = TypeVar("Answer")
Arguments = TypeVarTuple("Arguments")

#: The time limit of a wait. It catches what hangs, never what is slow: a start takes 2 s on a machine of its own, and
#: took more than 20 s on two cores with twenty others in line for them.
HANGS_AFTER_SECONDS = 150.0

_SHORTEST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.3
# Who looks all the time keeps the processor from what is waited for: after a look that took long, and late in a long
# wait, the next look may come later.
_PAUSE_PER_LOOK = 4.0
_PAUSE_PER_WAIT = 0.02


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
    began = time.monotonic()
    while True:
        failure: AssertionError | None = None
        answer: object = None
        look_began = time.monotonic()
        try:
            answer = condition(*arguments)
            if answer:
                return answer
        except AssertionError as error:
            failure = error
        now = time.monotonic()
        if now > began + within_seconds:
            if failure is not None:
                raise failure
            name = getattr(condition, "__name__", repr(condition))
            reason = f"\n{why()}" if why is not None else ""
            raise AssertionError(f"{name} was still {answer!r} after {within_seconds} s{reason}")
        pause = max(_SHORTEST_PAUSE_SECONDS, (now - look_began) * _PAUSE_PER_LOOK, (now - began) * _PAUSE_PER_WAIT)
        time.sleep(min(pause, _LONGEST_PAUSE_SECONDS))
