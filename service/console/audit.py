"""The audit: what people have changed, who did it, when and why."""

from collections.abc import Sequence

from flask import Blueprint, request
from flask_babel import lazy_gettext
from sqlalchemy import Engine
from werkzeug.wrappers import Response

from service.console.pages import Column, Listing, command, limit, list_page, url_with
from service.console.words import ACTIONS
from service.ledger.audit import AuditRecord, list_changes

_COLUMNS: Sequence[Column[AuditRecord]] = (
    Column(title=lazy_gettext("when"), value=lambda change: change.changed_at),
    Column(title=lazy_gettext("who"), value=lambda change: change.changed_by),
    Column(title=lazy_gettext("what"), value=lambda change: ACTIONS[change.action]),
    Column(title=lazy_gettext("of"), value=lambda change: change.subject, is_identifier=True),
    Column(title=lazy_gettext("why"), value=lambda change: change.reason),
)


def make_audit(*, engine: Engine) -> Blueprint:
    """The page. Its views may run on many threads at once."""
    blueprint = Blueprint("audit", __name__, url_prefix="/audit")

    @blueprint.route("")
    def show() -> str | Response:
        changes = list_changes(engine, limit=limit(), before=request.args.get("before", type=int))
        following = url_with(before=str(changes[-1].id)) if len(changes) == limit() else None
        listing = Listing(columns=_COLUMNS, items=changes, next_url=following)
        return list_page("audit.html", "audit", listing, command=command("audit"))

    return blueprint
