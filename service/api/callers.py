"""Who calls: bearer tokens, each with the name of the system that holds it and what it may do."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from service.config.settings import ApiScope, ApiToken

_SCHEME = "bearer "


class Unauthenticated(Exception):
    """The request shows no token of ours. Callers hear nothing more than that."""


class ScopeMissing(Exception):
    """The caller is one of ours, and may not do this."""

    def __init__(self, scope: ApiScope) -> None:
        super().__init__(f"the token has not the scope `{scope.value}`")
        self.scope = scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whoever sent a request."""

    name: str
    scopes: frozenset[ApiScope]

    def need(self, scope: ApiScope) -> None:
        """Raises ScopeMissing unless the caller may do what `scope` stands for."""
        if scope not in self.scopes:
            raise ScopeMissing(scope)


class Callers:
    """Tells callers by their tokens. Safe to share between threads."""

    def __init__(self, *, tokens: Sequence[ApiToken]) -> None:
        """Of the tokens only their hashes are kept."""
        self._callers = [
            (_hash(token.token.reveal()), Caller(name=token.name, scopes=token.scopes)) for token in tokens
        ]

    def identify(self, authorization: str | None) -> Caller:
        """Whoever sent this `Authorization` header. Raises Unauthenticated.

        Every token is compared, each in constant time, so that the clock tells neither how much of a guess was right
        nor whose token it came near to.
        """
        header = authorization or ""
        shown = _hash(header[len(_SCHEME) :].strip() if header[: len(_SCHEME)].lower() == _SCHEME else "")
        found = [caller for kept, caller in self._callers if hmac.compare_digest(kept, shown)]
        if not found:
            raise Unauthenticated
        return found[0]


def _hash(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogateescape")).digest()
