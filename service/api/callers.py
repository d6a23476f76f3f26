"""Who calls: bearer tokens, each with the name of the system that holds it."""

import hmac
from collections.abc import Mapping
from hashlib import sha256

from service.settings import Secret

_SCHEME = "bearer "


class Unauthenticated(Exception):
    """The request shows no token of ours. Callers hear nothing more than that."""


class Callers:
    """Tells callers by their tokens. Safe to share between threads."""

    def __init__(self, *, tokens: Mapping[str, Secret]) -> None:
        """`tokens` by name. Only their hashes are kept."""
        self._hashes = {name: _hash(token.reveal()) for name, token in tokens.items()}

    def identify(self, authorization: str | None) -> str:
        """The name of whoever sent this `Authorization` header. Raises Unauthenticated.

        Every token is compared, each in constant time, so that the clock tells neither how much of a guess was right
        nor whose token it came near to.
        """
        header = authorization or ""
        shown = _hash(header[len(_SCHEME) :].strip() if header[: len(_SCHEME)].lower() == _SCHEME else "")
        found = [name for name, kept in self._hashes.items() if hmac.compare_digest(kept, shown)]
        if not found:
            raise Unauthenticated
        return found[0]


def _hash(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogateescape")).digest()
