"""The console's Flask application: sessions, languages, safety headers, and the pages."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, Response, flash, g, redirect, request, session, url_for
from flask_babel import Babel, gettext
from markupsafe import Markup
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from werkzeug.exceptions import BadRequest, HTTPException
from werkzeug.wrappers import Response as BaseResponse

from service.config.settings import ApiScope, ConsoleSettings
from service.console.pages import (
    TEMPLATE_FUNCTIONS,
    form_text,
    own_path,
    page,
    referring_path,
    template_values,
    time_zones,
    url_with,
)
from service.console.people import OpenIdSignIn, ProxySignIn, TokenSignIn
from service.console.server import MAX_FORM_BYTES
from service.console.sessions import (
    CSRF_FIELD,
    LIVE_HEADER,
    FormTooOld,
    begin_session,
    csrf_token,
    end_session,
    require_own_form,
    session_is_alive,
    use_sessions,
)
from service.console.words import amount_in_words, people_in_words, problem_in_words
from service.domain.masking import escape_controls
from service.ledger.errors import LedgerError, LedgerUnavailable
from service.runtime.logs import Logger
from service.serving.health import Health

#: How often a page shows what is new.
_LIVE_SECONDS = 5
_LIVE_HEADERS = json.dumps({LIVE_HEADER: "1"})
LANGUAGES = {"en": "English", "zh": "中文"}

_OPEN_ENDPOINTS = frozenset(
    {"alive", "ready", "metrics", "sign_in", "sign_out", "openid.begin", "openid.finish", "preferences"}
)
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

_log = Logger(__name__)


def create_console(
    *,
    settings: ConsoleSettings,
    blueprints: Sequence[Blueprint],
    tokens: TokenSignIn,
    openid: OpenIdSignIn | None,
    proxy: ProxySignIn | None,
    registry: CollectorRegistry,
    health: Health,
) -> Flask:
    """The console's WSGI application, for one worker process. `registry` holds the metrics that it serves.

    With `openid`, `blueprints` has the pages of its flow.
    """
    app = Flask(__name__, static_folder="static", template_folder="templates")
    app.config.update(MAX_CONTENT_LENGTH=MAX_FORM_BYTES, MAX_FORM_MEMORY_SIZE=MAX_FORM_BYTES)
    use_sessions(app, settings)
    Babel(app, locale_selector=lambda: session.get("language", settings.language))
    app.context_processor(lambda: {**template_values(), "languages": LANGUAGES})
    app.jinja_env.globals.update(
        TEMPLATE_FUNCTIONS,
        versioned=_versioned(app),
        hidden=_hidden_field,
        live=_live_attributes,
        live_headers=_LIVE_HEADERS,
        amount_in_words=amount_in_words,
        people_in_words=people_in_words,
    )
    app.jinja_env.filters["visible"] = escape_controls

    @app.before_request
    def admit() -> BaseResponse | tuple[str, int] | None:
        g.default_time_zone, g.public_url = settings.time_zone, settings.public_url
        if request.endpoint == "static":
            return None  # without a look at the session: whatever keeps a file must not keep a cookie with it
        g.person = proxy and proxy.person(request.headers, request.remote_addr)
        if g.person is None and session_is_alive(settings):
            g.person = tokens.person(session) or (openid and openid.person(session))
        is_open = request.endpoint in _OPEN_ENDPOINTS or request.endpoint is None
        if g.person is None and not is_open:
            return _ask_to_sign_in()
        if request.method not in ("GET", "HEAD"):
            require_own_form()
        if is_open:
            return None
        if not g.person.may(ApiScope.READ):
            return page(
                "error.html",
                title=gettext("You may not use the console."),
                text=gettext("You are signed in as %(name)s, without the scope `read`.", name=g.person.name),
            ), 403
        return None

    def _sign_in_page(given: Mapping[str, str]) -> str:
        return page("sign_in.html", next=own_path(given.get("next", "")), has_openid=openid is not None)

    @app.route("/sign-in", methods=["GET", "POST"])
    def sign_in() -> str | BaseResponse | tuple[str, int]:
        if request.method == "GET":
            return _sign_in_page(request.args)
        begin_session()
        if not tokens.sign_in(form_text("token"), session):
            end_session()
            _log.warning("console_sign_in_refused", client=request.remote_addr)
            flash(gettext("This token is not valid."), "error")
            return _sign_in_page(request.form), 403
        return redirect(own_path(request.form.get("next", "")) or url_for("today.show"))

    @app.route("/sign-out", methods=["POST"])
    def sign_out() -> BaseResponse:
        end_session()
        return redirect(url_for("sign_in"))

    @app.route("/preferences", methods=["POST"])
    def preferences() -> BaseResponse:
        language, time_zone = form_text("language"), form_text("time_zone")
        if language not in LANGUAGES:
            raise BadRequest("language")
        session["language"] = language
        if time_zone in time_zones():
            session["time_zone"] = time_zone
        else:
            flash(gettext("No time zone is called %(name)s. Choose one of the list.", name=time_zone), "error")
        return redirect(own_path(request.form.get("next", "")) or url_for("today.show"))

    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    app.add_url_rule(
        "/metrics", "metrics", lambda: Response(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)
    )
    app.add_url_rule("/healthz", "alive", health.alive)
    app.add_url_rule("/readyz", "ready", health.ready)
    app.after_request(_protect)
    app.register_error_handler(LedgerError, _answer_ledger_error)
    app.register_error_handler(HTTPException, _answer_refusal)
    app.register_error_handler(Exception, _answer_error)
    return app


def _hidden_field() -> Markup:
    """What every form has to contain."""
    return Markup('<input type="hidden" name="{}" value="{}">').format(CSRF_FIELD, csrf_token())


def _live_attributes(url: str = "") -> Markup:
    """Makes an element load itself anew from this address, or else from the same page, every few seconds."""
    return Markup(
        'hx-get="{}" hx-trigger="every {}s" hx-select="#live" hx-target="this" hx-swap="outerMorph" hx-headers="{}"'
    ).format(url or url_with(), _LIVE_SECONDS, _LIVE_HEADERS)


def _versioned(app: Flask) -> Any:
    """Makes addresses of static files that change with their content, so that browsers may keep them."""
    folder = Path(app.static_folder or "")
    known: dict[str, str] = {}

    def address(name: str) -> str:
        if name not in known:
            known[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()[:12]
        return url_for("static", filename=name, v=known[name])

    return address


def _ask_to_sign_in() -> BaseResponse:
    if LIVE_HEADER in request.headers:
        # The page says so itself: it stays, and with it what somebody has typed.
        return Response(status=401)
    if request.method in ("GET", "HEAD"):
        here = request.full_path.rstrip("?")
    else:
        here = referring_path()
        flash(gettext("You are signed out, so nothing was done. Sign in and fill in the form again."), "error")
    return redirect(url_for("sign_in", next=here))


def _protect(response: Response) -> Response:
    headers = response.headers
    headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
    headers["X-Content-Type-Options"] = "nosniff"
    headers["X-Frame-Options"] = "DENY"
    headers["Referrer-Policy"] = "same-origin"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    if request.endpoint == "static" and response.status_code < 400:
        headers["Cache-Control"] = "public, max-age=31536000, immutable" if "v" in request.args else "no-cache"
    else:
        # Neither proxies nor browsers may keep what a page says about payments.
        headers["Cache-Control"] = "no-store"
    return response


def _answer_ledger_error(error: LedgerError) -> tuple[str, int]:
    if isinstance(error, LedgerUnavailable):
        _log.warning("console_ledger_unavailable", reason=str(error))
        return page(
            "error.html", title=gettext("The ledger cannot be used now."), text=gettext("Try again later.")
        ), 503
    return page("error.html", title=gettext("This was not done."), text=problem_in_words(error)), 409


def _answer_refusal(error: HTTPException) -> tuple[str, int] | HTTPException:
    texts = {
        400: gettext("Something that it needs is missing, or is not as it has to be: %(what)s", what=error.description),
        403: gettext("You may not do this."),
        404: gettext("There is no such page, or nothing is known by this name."),
        405: gettext("This address takes no such request."),
        413: gettext("This is too long."),
    }
    titles = {400: gettext("Bad Request"), 403: gettext("Forbidden"), 404: gettext("Not Found")}
    if error.code is None or error.code < 400:
        return error
    if isinstance(error, FormTooOld):
        return page(
            "error.html",
            title=gettext("This form is too old."),
            text=gettext("You have signed in or out since its page was opened. Nothing was done."),
            again=referring_path(),
        ), error.code
    return page(
        "error.html",
        title=titles.get(error.code, error.name),
        text=texts.get(error.code, error.description),
        again=referring_path() if request.method == "POST" and error.code == 400 else None,
    ), error.code


def _answer_error(error: Exception) -> tuple[str, int]:
    _log.error("console_failed", endpoint=request.endpoint, exc_info=error)
    return page("error.html", title=gettext("This did not work."), text=gettext("The log says why.")), 500
