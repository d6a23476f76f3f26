"""The audit: what people have changed, who did it, when and why."""

import re
from collections.abc import Sequence
from datetime import datetime

from flask import Blueprint, request, url_for
from flask_babel import gettext, lazy_gettext
from sqlalchemy import Engine
from werkzeug.wrappers import Response

from service.console.pages import Column, Listing, command, limit, list_page, local_time, order_url, url_with
from service.console.words import ACTIONS, STATUSES, people_in_words
from service.ledger.audit import DECISIONS, Action, AuditRecord, list_changes

_REPLAY = re.compile(r"(?P<endpoint>\S+): (?P<number>\d+) events from (\S+) to (\S+), replay (?P<replay>\d+)")
_GIVEN_UP = re.compile(r"(?P<endpoint>\S+): (?P<number>\d+) events \(all that were parked\)")

_COLUMNS: Sequence[Column[AuditRecord]] = (
    Column(title=lazy_gettext("when"), value=lambda change: change.changed_at),
    Column(title=lazy_gettext("who"), value=lambda change: people_in_words(change.changed_by)),
    Column(title=lazy_gettext("what"), value=lambda change: ACTIONS[change.action]),
    Column(
        title=lazy_gettext("of"),
        value=lambda change: _subject_of(change),
        link=lambda change: _page_of(change),
        is_identifier=True,
    ),
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


def _subject_of(change: AuditRecord) -> str:
    """What was changed, in words where the ledger's record has any."""
    if change.action in DECISIONS:
        order, _colon, status = change.subject.rpartition(": ")
        return str(gettext("%(order)s: %(status)s", order=order, status=STATUSES[status]))
    if found := _REPLAY.fullmatch(change.subject):
        since, until = (local_time(datetime.fromisoformat(found[place])) for place in (3, 4))
        return str(
            gettext(
                "%(endpoint)s: %(number)s events from %(since)s to %(until)s, replay %(replay)s",
                since=since,
                until=until,
                **found.groupdict(),
            )
        )
    if found := _GIVEN_UP.fullmatch(change.subject):
        return str(gettext("%(endpoint)s: %(number)s events that were given up", **found.groupdict()))
    return change.subject


def _page_of(change: AuditRecord) -> str:
    """The page of what was changed; "" where the record names no single one."""
    if change.merchant and change.biz_order_no:
        return order_url(change.merchant, change.biz_order_no)
    match change.action:
        case Action.PAUSE | Action.RESUME | Action.TEST_ENDPOINT:
            return url_for("endpoints.show", name=change.subject)
        case Action.REPLAY:
            return url_for("endpoints.show", name=change.subject.partition(":")[0])
        case Action.REPLAY_DEAD_LETTERS | Action.DROP_DEAD_LETTERS if ", " not in change.subject:
            return url_for("dead_letters.show", id=change.subject)
    return ""
