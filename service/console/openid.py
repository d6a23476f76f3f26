"""Signing in through OpenID Connect: the authorization code flow, with PKCE, state and nonce.

Sources: OpenID Connect Core 1.0, section 3.1; OpenID Connect Discovery 1.0, section 4; RFC 7636. Authlib keeps what a
sign-in under way needs in the session's cookie. The provider's configuration and keys are read anew for each sign-in,
so none of them is ever out of date.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from authlib.common.errors import AuthlibBaseError
from authlib.integrations.flask_client import FlaskIntegration, FlaskOAuth2App
from flask import Blueprint, redirect, request, session, url_for
from flask_babel import gettext
from joserfc.errors import JoseError
from requests import RequestException
from werkzeug.wrappers import Response

from service.config.settings import OpenIdSettings
from service.console.pages import own_path, page
from service.console.people import OpenIdRefused, OpenIdSignIn
from service.console.sessions import begin_session
from service.runtime.logs import Logger

_TIMEOUT_SECONDS = 5.0
#: By how much the provider's clock may differ from ours.
_LEEWAY_SECONDS = 60
#: The algorithms of ID tokens that prove who signed them, most common first.
_SIGNATURES = ("RS256", "ES256", "PS256", "EdDSA", "RS384", "RS512", "ES384", "ES512", "PS384", "PS512")
#: Authlib's name for the client; its keys in a session begin with the second one.
_CLIENT, _STATES = "openid", "_state_openid_"
#: Where the person wants to go once they are signed in.
_NEXT = "next"

_log = Logger(__name__)


class OpenIdUnavailable(Exception):
    """The identity provider cannot be used now. The text says why, for the log."""


def make_openid(settings: OpenIdSettings, *, public_url: str, people: OpenIdSignIn) -> Blueprint:
    """The two pages of the flow. `public_url` is the console's own, which the provider has to know.

    Nothing is asked of the provider before somebody signs in, so the console starts without it.
    """
    blueprint = Blueprint("openid", __name__, url_prefix="/sign-in/openid")

    @blueprint.route("")
    def begin() -> Response:
        # One at a time: what earlier ones have left would make the cookie too large for browsers.
        for name in [name for name in session if name.startswith(_STATES)]:
            session.pop(name)
        session[_NEXT] = own_path(request.args.get("next", ""))
        with _translated():
            response = _client(settings).authorize_redirect(public_url + url_for(".finish"))
        assert isinstance(response, Response)  # noqa: S101 - Authlib has no types
        return response

    @blueprint.route("/callback")
    def finish() -> Response:
        with _translated():
            claims = (
                _client(settings)
                .authorize_access_token(
                    claims_options={
                        "iss": {"essential": True, "value": settings.issuer},
                        "aud": {"essential": True, "value": settings.client_id},
                    },
                    leeway=_LEEWAY_SECONDS,
                )
                .get("userinfo")
            )
        if claims is None:
            raise OpenIdRefused("the provider gave no ID token")
        target = session.get(_NEXT, "")
        begin_session()
        people.sign_in(claims, session)
        return redirect(own_path(target) or url_for("today.show"))

    @blueprint.errorhandler(OpenIdRefused)
    def refuse(error: OpenIdRefused) -> tuple[str, int]:
        # What the address says is anybody's, so the page does not repeat it.
        _log.warning("console_sign_in_refused", client=request.remote_addr, reason=str(error)[:200])
        text = gettext("The answer of your identity provider was refused. Sign in again; the log says why.")
        return page("error.html", title=gettext("You are not signed in."), text=text), 403

    @blueprint.errorhandler(OpenIdUnavailable)
    def say_unavailable(error: OpenIdUnavailable) -> tuple[str, int]:
        _log.warning("console_identity_provider_unavailable", issuer=settings.issuer, reason=str(error)[:200])
        text = gettext("Your identity provider cannot be reached. Try again later, or sign in with a token.")
        return page("error.html", title=gettext("You are not signed in."), text=text), 503

    return blueprint


def _client(settings: OpenIdSettings) -> Any:
    """Authlib's client, with the provider's configuration as it is now."""
    client = FlaskOAuth2App(
        FlaskIntegration(_CLIENT),
        name=_CLIENT,
        client_id=settings.client_id,
        client_secret=settings.client_secret.reveal(),
        server_metadata_url=settings.issuer.rstrip("/") + "/.well-known/openid-configuration",
        client_kwargs={
            "scope": "openid profile email",
            "code_challenge_method": "S256",
            "default_timeout": _TIMEOUT_SECONDS,
        },
    )
    metadata = client.load_server_metadata()
    if metadata["issuer"] != settings.issuer:
        raise OpenIdUnavailable(f"the provider calls itself {metadata['issuer']!r}: set console.openid.issuer to that")
    # A provider may offer `none`, too.
    offered = metadata.get("id_token_signing_alg_values_supported", _SIGNATURES)
    metadata["id_token_signing_alg_values_supported"] = [name for name in _SIGNATURES if name in offered]
    return client


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (AuthlibBaseError, JoseError) as error:
        raise OpenIdRefused(f"{type(error).__name__}: {error}") from error
    except RequestException as error:
        raise OpenIdUnavailable(f"{type(error).__name__}: {error}") from error
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        # Authlib takes the provider's JSON as it comes.
        raise OpenIdUnavailable(f"its answers cannot be read ({type(error).__name__}: {error})") from error
