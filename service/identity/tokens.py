"""Bearer tokens: which caller sent a request, and what that caller may do. Every role with callers uses them."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from service.config.settings import ApiScope, ApiToken
from service.ledger.audit import Author

_SCHEME = "bearer "


class Unauthenticated(Exception):
    """The request has no valid token. The response does not say why."""


class ScopeMissing(Exception):
    """The caller's token does not have the scope that the operation requires."""

    def __init__(self, scope: ApiScope) -> None:
        super().__init__(f"the token does not have the scope `{scope.value}`")
        self.scope = scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The system that sent a request."""

    name: str
    scopes: frozenset[ApiScope]
    #: What tells the one person who uses the token from all others; "" where it is a system's.
    person: str = ""
    #: A part of the token's hash: it is another one once the token is replaced.
    fingerprint: str = ""

    def require(self, scope: ApiScope) -> None:
        """Raises ScopeMissing unless the caller has `scope`."""
        if scope not in self.scopes:
            raise ScopeMissing(scope)

    def speaking_for(self, person: str) -> str:
        """How records name a person in whose name the caller decides something."""
        owner = f" of {self.person}" if self.person else ""
        return f"{person} (API token {self.name}{owner})"

    def author(self, body: Mapping[str, Any]) -> Author:
        """Who makes the change that a request asks for, and why; `body` has the member `name`, and maybe `reason`."""
        return Author(name=self.speaking_for(body["name"]), reason=body.get("reason", ""), identity=self.person)


class Authenticator:
    """Identifies callers by their tokens. Safe to share between threads."""

    def __init__(self, *, tokens: Sequence[ApiToken]) -> None:
        """Only the hashes of the tokens are kept."""
        self._callers = [_hashed_caller(token) for token in tokens]

    def authenticate(self, authorization: str | None) -> Caller:
        """The caller that sent this `Authorization` header. Raises Unauthenticated."""
        header = authorization or ""
        found = self.find(header[len(_SCHEME) :].strip() if header[: len(_SCHEME)].lower() == _SCHEME else "")
        if found is None:
            raise Unauthenticated
        return found

    def find(self, token: str) -> Caller | None:
        """The caller with this token; None where there is none.

        Compares every token, each in constant time. The response time reveals neither how much of a guess was right
        nor which token it resembles.
        """
        given = _hash(token)
        found = [caller for known, caller in self._callers if hmac.compare_digest(known, given)]
        return found[0] if found else None

    def named(self, name: str) -> Caller | None:
        """The caller of this name; None where there is none."""
        return next((caller for _, caller in self._callers if caller.name == name), None)


def _hashed_caller(token: ApiToken) -> tuple[bytes, Caller]:
    hashed = _hash(token.token.reveal())
    return hashed, Caller(name=token.name, scopes=token.scopes, person=token.person, fingerprint=hashed.hex()[:16])


def _hash(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogateescape")).digest()
