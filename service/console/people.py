"""Who uses the console, and what they may do: signed in with an API token, by a proxy, or through OpenID Connect."""

import hmac
from collections.abc import Collection, Mapping, MutableMapping
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address, ip_network
from typing import Any

from werkzeug.datastructures import Headers

from service.config.settings import ApiScope, OpenIdSettings, ProxySettings
from service.identity.tokens import Authenticator
from service.ledger.audit import Author

_EVERYBODY = "*"
#: What a session holds of a person.
_METHOD, _NAME, _PROOF, _LABEL, _GROUPS = "method", "name", "proof", "label", "groups"
#: The longest subject (OpenID Connect Core 1.0, section 2), and the longest name beside it.
_MAX_SUBJECT, _MAX_LABEL = 255, 100


class OpenIdRefused(Exception):
    """Nobody is signed in by what came from the identity provider. The text says why, for the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody who has signed in."""

    #: Unique: two people never have the same, and one person always has the same where they sign in the same way.
    identity: str
    #: How they signed in, as records name it: "API token shop", "proxy", "OpenID".
    method: str
    scopes: frozenset[ApiScope]
    #: What people call them, where the identity says nothing to people.
    label: str = ""

    @property
    def name(self) -> str:
        """How records name the person: `li.lei (console, OpenID 8f3a)`."""
        method = f"{self.method} {self.identity}" if self.label else self.method
        return f"{self.label or self.identity} (console, {method})"

    def may(self, scope: ApiScope) -> bool:
        """Whether they may do what needs this scope."""
        return scope in self.scopes

    def author(self, reason: str) -> Author:
        """The person as the one who makes a change, and why."""
        return Author(name=self.name, reason=reason, identity=self.identity)


def scopes_of(groups: Collection[str], allowed: Mapping[str, frozenset[ApiScope]]) -> frozenset[ApiScope]:
    """All that the groups may do together, by the settings."""
    return frozenset().union(*(allowed.get(group, ()) for group in (*groups, _EVERYBODY)))


class TokenSignIn:
    """Signs people in with tokens of the API. Safe to share between threads.

    A session holds the token's name and a part of its hash, so it ends once the token is removed or replaced.
    """

    def __init__(self, callers: Authenticator) -> None:
        self._callers = callers

    def sign_in(self, given: str, session: MutableMapping[str, Any]) -> bool:
        """Sign in with a token, into this session; False where there is no such token."""
        caller = self._callers.find(given.strip())
        if caller is not None:
            session.update({_METHOD: "token", _NAME: caller.name, _PROOF: caller.fingerprint})
        return caller is not None

    def person(self, session: Mapping[str, Any]) -> Person | None:
        """Who has signed in so; None where nobody has, or the token is no longer valid."""
        caller = self._callers.named(session.get(_NAME, "")) if session.get(_METHOD) == "token" else None
        if caller is None or not hmac.compare_digest(caller.fingerprint, str(session.get(_PROOF))):
            return None
        return Person(identity=caller.person or caller.name, method=f"API token {caller.name}", scopes=caller.scopes)


class ProxySignIn:
    """Takes the person from the headers of a proxy that has authenticated them. Safe to share between threads."""

    def __init__(self, settings: ProxySettings) -> None:
        self._settings = settings
        self._networks = [ip_network(network) for network in settings.networks]

    def person(self, headers: Headers, client: str | None) -> Person | None:
        """Who sent a request; None where it does not come from the proxy, or the proxy names nobody."""
        try:
            address = ip_address(client or "")
        except ValueError:
            return None
        address = getattr(address, "ipv4_mapped", None) or address
        user = headers.get(self._settings.user_header, "").strip()
        # With a comma, the header came twice: once from the proxy, and once from the browser.
        if not user or "," in user or not any(address in network for network in self._networks):
            return None
        groups = [group.strip() for group in headers.get(self._settings.groups_header, "").split(",")]
        return Person(identity=user, method="proxy", scopes=scopes_of(groups, self._settings.groups))


class OpenIdSignIn:
    """Signs people in by the claims of an ID token. Safe to share between threads.

    A session holds the subject and the groups, so the settings decide at each request what the person may do. It ends
    once the settings name another provider or client.
    """

    def __init__(self, settings: OpenIdSettings) -> None:
        self._settings = settings
        self._proof = sha256(f"{settings.issuer} {settings.client_id}".encode()).hexdigest()[:16]

    def sign_in(self, claims: Mapping[str, Any], session: MutableMapping[str, Any]) -> None:
        """Sign in by the claims of a verified ID token, into this session. Raises OpenIdRefused."""
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_SUBJECT or not subject.isprintable():
            raise OpenIdRefused("the ID token's subject is no text of 1 to 255 characters")
        groups = claims.get(self._settings.groups_claim, [])
        if not isinstance(groups, list):
            raise OpenIdRefused(f"the ID token's claim `{self._settings.groups_claim}` is no list")
        label = claims.get("preferred_username") or claims.get("email") or ""
        session.update(
            {
                _METHOD: "openid",
                _NAME: subject,
                _LABEL: str(label)[:_MAX_LABEL] if label != subject else "",
                # Without those that the settings do not name: a browser drops a cookie of more than 4 KiB.
                _GROUPS: [group for group in groups if isinstance(group, str) and group in self._settings.groups],
                _PROOF: self._proof,
            }
        )

    def person(self, session: Mapping[str, Any]) -> Person | None:
        """Who has signed in so; None where nobody has."""
        if session.get(_METHOD) != "openid" or session.get(_PROOF) != self._proof:
            return None
        return Person(
            identity=session[_NAME],
            method="OpenID",
            scopes=scopes_of(session[_GROUPS], self._settings.groups),
            label=session[_LABEL],
        )
