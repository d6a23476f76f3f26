"""Sessions: a signed cookie says who has signed in, since when, and which language and time zone they read.

Nothing is stored on the server, so any number of processes may serve one browser. The cookie is not encrypted and
holds no secret.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Sequence

from flask import Flask, g, request, session
from flask.sessions import SecureCookieSessionInterface, SessionMixin
from werkzeug.exceptions import Forbidden

from service.config.settings import ConsoleSettings

_STARTED, _SEEN, _CSRF = "started", "seen", "csrf"
#: A session's last use is written anew at most this often.
_SEEN_ANEW_SECONDS = 30.0
#: The header of requests that a page makes by itself to show what is new. They keep no session alive.
LIVE_HEADER = "X-Live"
#: The field of every form, and what it has to hold.
CSRF_FIELD = "csrf"


class FormTooOld(Forbidden):
    """A form of a session that has ended since its page was opened."""


class _Sessions(SecureCookieSessionInterface):
    digest_method = staticmethod(hashlib.sha256)

    def should_set_cookie(self, app: Flask, session: SessionMixin) -> bool:
        """Not for a form of another site. It comes without the cookie, and a new one would sign the person out."""
        return super().should_set_cookie(app, session) and not _is_foreign_form()


def use_sessions(app: Flask, settings: ConsoleSettings) -> None:
    """Keep sessions in signed cookies."""
    https = settings.public_url.startswith("https://")
    keys: Sequence[str] = [key.reveal() for key in settings.session_keys]
    app.config.update(
        SECRET_KEY=keys[0],
        SECRET_KEY_FALLBACKS=list(keys[1:]),
        # The prefix binds it to this host, to TLS and to all paths; browsers allow it with TLS alone.
        SESSION_COOKIE_NAME="__Host-console" if https else "console",
        SESSION_COOKIE_SECURE=https,
        SESSION_COOKIE_HTTPONLY=True,
        # A link in a chat opens signed in; a form on another site does not.
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_PATH="/",
        SESSION_REFRESH_EACH_REQUEST=False,
    )
    app.session_interface = _Sessions()


def begin_session() -> None:
    """Begin a session anew; call it before somebody is signed in. Language and time zone are kept."""
    kept = {name: session[name] for name in ("language", "time_zone") if name in session}
    session.clear()
    session.update({**kept, _STARTED: time.time(), _SEEN: time.time()})


def end_session() -> None:
    """Sign out. Language and time zone are kept."""
    begin_session()
    session.pop(_STARTED)


def session_is_alive(settings: ConsoleSettings) -> bool:
    """Whether the session has neither been idle for too long nor lasted too long. Notes that it is used."""
    now = time.time()
    started, seen = float(session.get(_STARTED, 0)), float(session.get(_SEEN, 0))
    if now - started >= settings.max_session_seconds or now - seen >= settings.max_idle_seconds:
        return False
    if LIVE_HEADER not in request.headers and now - seen >= min(_SEEN_ANEW_SECONDS, settings.max_idle_seconds / 4):
        session[_SEEN] = now
    return True


def csrf_token() -> str:
    """What every form of this session has to send back."""
    if _CSRF not in session:
        session[_CSRF] = secrets.token_urlsafe(16)
    return str(session[_CSRF])


def require_own_form() -> None:
    """Raises FormTooOld, or Forbidden for another site's form, unless it is a form of this session (CSRF)."""
    if _is_foreign_form():
        raise Forbidden
    given = request.form.get(CSRF_FIELD, "")
    if not hmac.compare_digest(given.encode(), csrf_token().encode()):
        raise FormTooOld


def _is_foreign_form() -> bool:
    return request.method not in ("GET", "HEAD") and request.headers.get("Origin", g.public_url) != g.public_url
