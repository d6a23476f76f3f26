"""Today: what waits for a person, and how complete the day is."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import tzinfo
from decimal import Decimal

from flask import Blueprint, flash, redirect, request, url_for
from flask_babel import gettext, lazy_gettext
from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Response

from service.config.settings import ApiScope
from service.console.pages import (
    Column,
    Listing,
    after,
    command,
    form_text,
    limit,
    list_page,
    next_url,
    options,
    order_url,
    require,
    shown,
)
from service.console.words import (
    CAUSES,
    CONTRADICTIONS,
    FIELDS,
    KINDS,
    NEXT_STEPS,
    STATUSES,
    amount_in_words,
    people_in_words,
)
from service.ledger.attention import AttentionFilter, AttentionItem, AttentionKind, AttentionList, AttentionPlace
from service.ledger.endpoints import EndpointState
from service.ledger.errors import AttentionItemUnknown
from service.ledger.reports import Reports

_LOOK = lazy_gettext("Look at the order")

_COLUMNS: Sequence[Column[AttentionItem]] = (
    Column(title=lazy_gettext("since"), value=lambda item: item.since),
    Column(title=lazy_gettext("cause"), value=lambda item: CAUSES[item.kind]),
    Column(
        title=lazy_gettext("concerns"),
        value=lambda item: _concerns(item),
        link=lambda item: _page_of(item),
        is_identifier=True,
    ),
    Column(
        title=lazy_gettext("amount at stake"),
        value=lambda item: amount_in_words(item.amount, item.amount_unit),
        is_number=True,
    ),
    Column(title=lazy_gettext("orders"), value=lambda item: item.orders or "", is_number=True),
    Column(title=lazy_gettext("detail"), value=lambda item: _detail_of(item)),
    Column(title=lazy_gettext("acknowledged"), value=lambda item: _acknowledgement(item)),
    Column(
        title=lazy_gettext("next step"),
        value=lambda item: NEXT_STEPS.get(item.kind, _LOOK),
        link=lambda item: _page_of(item),
    ),
)


def make_today(
    *,
    attention: AttentionList,
    reports: Reports,
    read_endpoints: Callable[[], Sequence[EndpointState]],
    zones: Mapping[str, tzinfo],
) -> Blueprint:
    """The pages. `zones` has each merchant's time zone. Views may run on many threads at once."""
    blueprint = Blueprint("today", __name__)

    @blueprint.route("/")
    def show() -> str | Response:
        chosen = _filter(after(AttentionPlace))
        items = attention.list(chosen, limit=limit())
        return list_page(
            "today.html",
            "attention",
            Listing(columns=_COLUMNS, items=items, next_url=next_url(items)),
            kinds=KINDS,
            chosen=chosen,
            endpoints=(states := read_endpoints()),
            failing=[state for state in states if state.failing_since is not None],
            at_stake=_sum_amounts(items),
            completeness=reports.read_completeness(zones),
            command=command(
                "orders",
                "attention",
                *options(kind=chosen.kind, merchant=chosen.merchant, group=chosen.group),
                *(["--all"] if chosen.acknowledged is None else []),
            ),
        )

    @blueprint.route("/attention/acknowledge", methods=["POST"])
    def acknowledge() -> Response:
        person = require(ApiScope.RESOLVE)
        try:
            item = attention.acknowledge(form_text("item"), name=person.name, note=form_text("note"))
            flash(gettext("%(item)s is hidden for everybody until it changes.", item=shown(_concerns(item))))
        except AttentionItemUnknown:
            flash(gettext("It does not wait any more."), "error")
        return redirect(url_for("today.show"))

    return blueprint


def _filter(place: AttentionPlace | None) -> AttentionFilter:
    given = request.args
    try:
        kind = AttentionKind(given["kind"]) if given.get("kind") else None
    except ValueError as error:
        raise BadRequest("kind") from error
    group = given.get("group") or None
    return AttentionFilter(
        kind=kind,
        merchant=given.get("merchant") or None,
        group=group,
        acknowledged=None if group or given.get("all") else False,
        after=place,
    )


def _sum_amounts(items: Sequence[AttentionItem]) -> Mapping[str, Decimal]:
    """The exact sum by unit. An order that waits for two reasons counts once."""
    sums: defaultdict[str, Decimal] = defaultdict(Decimal)
    seen = set()
    for item in items:
        name = (item.merchant, item.biz_order_no) if item.biz_order_no else item.id
        if item.amount and item.amount_unit and name not in seen:
            seen.add(name)
            sums[item.amount_unit] += Decimal(item.amount)
    return sums


def _concerns(item: AttentionItem) -> str:
    if item.endpoint and item.event_id:
        return f"{item.endpoint}: {item.event_id}"
    return item.endpoint or " ".join(filter(None, (item.merchant, item.biz_order_no))) or item.id.partition("/")[2]


def _page_of(item: AttentionItem) -> str:
    match item.kind:
        case AttentionKind.DEAD_LETTER:
            return url_for("dead_letters.show", id=item.id.partition("/")[2])
        case AttentionKind.PAUSED_ENDPOINT | AttentionKind.PARKED_DELIVERIES:
            return url_for("endpoints.show", name=item.endpoint)
        case AttentionKind.DISPUTED_FIELD:
            return url_for("today.show", group=item.id)
        case AttentionKind.PROPOSAL:
            return order_url(item.merchant, item.biz_order_no) + "#confirming"
    return order_url(item.merchant, item.biz_order_no) if item.biz_order_no else ""


def _detail_of(item: AttentionItem) -> str:
    """What the item says beyond its cause, in the reader's language as far as the service itself says it."""
    match item.kind:
        case AttentionKind.CONFLICT | AttentionKind.DISPUTED_FIELD:
            return str(FIELDS.get(item.detail, item.detail))
        case AttentionKind.PARKED_DELIVERIES:
            return str(gettext("%(error)s: %(number)s events", error=item.detail, number=item.events))
        case AttentionKind.CONTRADICTED_WITHHOLD:
            return str(CONTRADICTIONS.get(item.detail, item.detail))
        case AttentionKind.PROPOSAL:
            status, _, proposal = item.detail.partition(", by ")
            person, colon, reason = proposal.partition(": ")
            proposal = f"{people_in_words(person)}{colon}{reason}"
            return str(gettext("%(status)s, proposed by %(proposal)s", status=STATUSES[status], proposal=proposal))
        case AttentionKind.WAITING_CALLBACKS | AttentionKind.SILENT_REPORTER:
            name, _, report = item.detail.rpartition(": ")
            return str(
                gettext("%(name)s: callbacks at the last report: %(number)s", name=name, number=report.split()[0])
            )
    return item.detail


def _acknowledgement(item: AttentionItem) -> str:
    return f"{people_in_words(item.acknowledged_by or '')}: {item.note}" if item.acknowledged_at else ""
