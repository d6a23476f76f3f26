"""An OpenID Connect provider in a thread of the test's own process: discovery, keys, authorization and tokens.

It checks what a provider has to check: the client and its secret, the redirect URI, the code, and PKCE's verifier.
"""

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.support.http_server import LocalServer, SilentHandler

CLIENT_ID, CLIENT_SECRET = "the-console", "the-secret-of-the-console"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grant:
    nonce: str
    challenge: str


class IdentityProvider(LocalServer):
    """Use it as a context manager. Everybody who is sent to it is the person of `claims` at once."""

    def __init__(self, *, redirect_uri: str) -> None:
        """`redirect_uri` is the only address that it sends people to."""
        self.redirect_uri = redirect_uri
        #: What an ID token says beside its issuer, audience, times and nonce.
        self.claims: Mapping[str, Any] = {}
        #: Changes an ID token before it is signed.
        self.spoil: Callable[[dict[str, Any]], None] = lambda _claims: None
        #: Signs ID tokens; its keys at `/keys` hold the one that it began with.
        self.key = RSAKey.generate_key(2048, {"kid": "key-1"})
        #: Whether ID tokens are signed at all.
        self.signs = True
        #: Whether it answers with an error.
        self.is_down = False
        #: How it calls itself, if not by its address.
        self.issuer = ""
        self._published = self.key.as_dict(private=False)
        self._grants: dict[str, _Grant] = {}

        class Handler(_Handler):
            provider = self

        super().__init__(Handler)

    def configuration(self) -> dict[str, Any]:
        """OpenID Connect Discovery 1.0, section 3. Like some, it offers unsigned tokens, too."""
        return {
            "issuer": self.issuer or self.origin,
            "authorization_endpoint": f"{self.origin}/authorize",
            "token_endpoint": f"{self.origin}/token",
            "jwks_uri": f"{self.origin}/keys",
            "response_types_supported": ["code"],
            "id_token_signing_alg_values_supported": ["RS256", "none"],
        }

    def keys(self) -> dict[str, Any]:
        """The public keys."""
        return {"keys": [self._published]}

    def authorize(self, given: Mapping[str, str]) -> str:
        """Where the browser is sent with a code."""
        assert given["response_type"] == "code"
        assert given["client_id"] == CLIENT_ID
        assert given["redirect_uri"] == self.redirect_uri
        assert given["code_challenge_method"] == "S256"
        assert "openid" in given["scope"].split()
        code = secrets.token_urlsafe(8)
        self._grants[code] = _Grant(nonce=given["nonce"], challenge=given["code_challenge"])
        return f"{self.redirect_uri}?{urlencode({'code': code, 'state': given['state']})}"

    def exchange(self, given: Mapping[str, str], authorization: str) -> dict[str, Any] | None:
        """The tokens for a code; None where it is refused."""
        expected = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        grant = self._grants.pop(given.get("code", ""), None)
        verifier = hashlib.sha256(given.get("code_verifier", "").encode()).digest()
        is_right = (
            grant is not None
            and authorization == f"Basic {expected}"
            and given.get("grant_type") == "authorization_code"
            and given.get("redirect_uri") == self.redirect_uri
            and base64.urlsafe_b64encode(verifier).rstrip(b"=").decode() == grant.challenge
        )
        if grant is None or not is_right:
            return None
        now = int(time.time())
        claims = {
            "iss": self.origin,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": grant.nonce,
            **self.claims,
        }
        self.spoil(claims)
        token = jwt.encode({"alg": "RS256", "kid": "key-1"}, claims, self.key)
        if not self.signs:
            header = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
            token = f"{header}.{token.split('.')[1]}."
        return {"access_token": secrets.token_urlsafe(8), "token_type": "Bearer", "id_token": token}


class _Handler(SilentHandler):
    provider: IdentityProvider

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if self.provider.is_down:
            self._answer(503, {})
        elif url.path == "/.well-known/openid-configuration":
            self._answer(200, self.provider.configuration())
        elif url.path == "/keys":
            self._answer(200, self.provider.keys())
        else:
            self._answer(302, {}, location=self.provider.authorize(_fields(url.query)))

    def do_POST(self) -> None:
        given = _fields(self.rfile.read(int(self.headers["content-length"])).decode())
        tokens = self.provider.exchange(given, self.headers.get("authorization", ""))
        self._answer(400 if tokens is None else 200, tokens or {"error": "invalid_grant"})

    def _answer(self, status: int, content: Mapping[str, Any], *, location: str = "") -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(body)


def _fields(text: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(text).items()}
