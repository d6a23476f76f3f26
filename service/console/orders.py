"""Orders: found by number, amount, status or time, and one order with its timeline and what a person may do."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from flask import Blueprint, flash, redirect, request
from flask.typing import ResponseReturnValue
from flask_babel import gettext, lazy_gettext
from werkzeug.exceptions import BadRequest, NotFound
from werkzeug.wrappers import Response

from service.charging.announce import Announcer
from service.config.settings import ApiScope
from service.console.pages import (
    Column,
    Listing,
    after,
    command,
    form_text,
    limit,
    list_page,
    local_time,
    me,
    next_url,
    options,
    order_url,
    page,
    read_time,
    read_window,
    require,
)
from service.console.timeline import explain_open, fold, last_decision, make_outlook, make_timeline, status_in_words
from service.console.words import (
    FIELDS,
    STATUSES,
    TRUSTS,
    TRUSTS_IN_SHORT,
    VERDICTS,
    amount_in_words,
    problem_in_words,
)
from service.domain.claims import OrderKey, OrderStatus
from service.domain.money import read_money
from service.gateway.errors import MessageInvalid
from service.ledger.claims import RESOLVABLE, Resolution
from service.ledger.errors import LedgerError, LedgerUnavailable, OrderChanged, UnknownMerchant
from service.ledger.histories import OrderHistory
from service.ledger.inquiries import InquiryReason
from service.ledger.orders import OrderFilter, OrderPlace, OrderRecord
from service.ledger.proposals import ProposalRecord, ProposalState
from service.ledger.store import LedgerStore

_COLUMNS: Sequence[Column[OrderRecord]] = (
    Column(title=lazy_gettext("changed"), value=lambda order: order.updated_at),
    Column(title=lazy_gettext("merchant"), value=lambda order: order.merchant, is_identifier=True),
    Column(
        title=lazy_gettext("order"),
        value=lambda order: order.biz_order_no,
        link=lambda order: order_url(*order.key),
        is_identifier=True,
    ),
    Column(
        title=lazy_gettext("status"),
        value=lambda order: status_in_words(order.state.status, conflicted=order.state.conflicted),
    ),
    Column(
        title=lazy_gettext("trust"), value=lambda order: TRUSTS_IN_SHORT[order.state.trust] if order.state.trust else ""
    ),
    Column(
        title=lazy_gettext("amount"),
        value=lambda order: amount_in_words(order.amount, order.amount_unit),
        is_number=True,
    ),
    Column(
        title=lazy_gettext("the gateway's number"),
        value=lambda order: order.state.pay_order_no or "",
        is_identifier=True,
    ),
)


def make_orders(*, store: LedgerStore, announcer: Announcer, merchants: Sequence[str]) -> Blueprint:
    """The pages. `merchants` are those in the settings. Views may run on many threads at once."""
    blueprint = Blueprint("orders", __name__)

    @blueprint.route("/orders")
    def search() -> ResponseReturnValue:
        number = request.args.get("q", "").strip()
        chosen, errors = (OrderFilter(), {}) if number else _read_filter()
        found: Sequence[OrderRecord] = []
        if number:
            found = _find(number)
            if len(found) == 1:
                return redirect(order_url(*found[0].key))
        elif not errors:
            found = store.list_orders(chosen, limit=limit())
        shown_page = list_page(
            "orders.html",
            "orders",
            Listing(columns=_COLUMNS, items=found, next_url=None if number else next_url(found)),
            number=number,
            given=request.args,
            errors=errors,
            merchants=merchants,
            statuses=STATUSES,
            command=None
            if errors
            else command("orders", "list", *(["--number", number] if number else _options(chosen))),
        )
        return (shown_page, 400) if errors else shown_page

    @blueprint.route("/order")
    def show() -> str:
        key = OrderKey(request.args.get("merchant", ""), request.args.get("number", ""))
        return _page(key, store.order_history(key))

    def _page(key: OrderKey, history: OrderHistory, given: Mapping[str, str] = MappingProxyType({})) -> str:
        """An order's page. `given` is what a refused form for its status held."""
        if not history.known:
            raise NotFound
        proposal = next((one for one in history.proposals if one.state is ProposalState.OPEN), None)
        # The forms keep what a person saw when they opened the page, while the rest of it shows what is new.
        version = f"{history.order.sequence if history.order else 0}.{proposal.id if proposal else 0}"
        seen = request.args.get("seen", version)
        return page(
            "order.html",
            key=key,
            history=history,
            order=history.order,
            status=status_in_words(history.order.state.status, conflicted=history.order.state.conflicted)
            if history.order
            else gettext("no status: no trusted claim names it"),
            timeline=fold(make_timeline(history)),
            outlook=make_outlook(history),
            why_open=explain_open(history),
            proposal=proposal,
            proposed=_compare(history.order, proposal) if proposal else (),
            given=given,
            page_url=order_url(*key),
            for_two=store.need_second_person(key, history.order) if store.is_configured(key.merchant) else (),
            seen=seen,
            has_changed=seen != version,
            resolvable={status: STATUSES[status] for status in RESOLVABLE},
            statuses=STATUSES,
            trusts=TRUSTS,
            fields=FIELDS,
            command=command("orders", "show", *key),
        )

    @blueprint.route("/order/inquire", methods=["POST"])
    def inquire() -> Response:
        author = require(ApiScope.INQUIRE).author(form_text("reason"))
        key = _known_order()
        if store.inquire(key, InquiryReason.OPERATOR, author=author):
            inquiry = store.load_inquiry(key)
            time = local_time(inquiry.due_at if inquiry else None)
            flash(gettext("The gateway is asked from %(time)s on, as soon as the merchant's limits allow.", time=time))
        else:
            flash(gettext("The gateway of this merchant cannot be asked: its settings have none."), "error")
        return redirect(order_url(*key))

    @blueprint.route("/order/resolve", methods=["POST"])
    def resolve() -> ResponseReturnValue:
        require(ApiScope.RESOLVE)
        key = _known_order()
        try:
            outcome = store.resolve(_read_resolution(key, announcer))
        except OrderChanged:
            history = store.order_history(key)
            text = gettext("The order has changed since you looked at it. Nothing was done; look again.")
            flash(" ".join(filter(None, (text, last_decision(history)))), "error")
            return _page(key, history, request.form), 409
        except LedgerUnavailable:
            raise
        except (LedgerError, MessageInvalid) as error:
            flash(gettext("Nothing was done: %(error)s", error=problem_in_words(error)), "error")
            return _page(key, store.order_history(key), request.form), 409
        if isinstance(outcome, ProposalRecord):
            flash(gettext("Proposed. Another person has to confirm it."))
        else:
            flash(gettext("Decided. %(verdict)s", verdict=VERDICTS[outcome]))
        return redirect(order_url(*key))

    @blueprint.route("/order/proposal", methods=["POST"])
    def decide() -> Response:
        person = require(ApiScope.RESOLVE)
        key = _known_order()
        confirms = form_text("decision") == "confirm"
        try:
            proposal = int(form_text("proposal"))
            if confirms:
                store.confirm(key, proposal, author=person.author(""))
                flash(gettext("Confirmed: the order is resolved."))
            else:
                store.withdraw(key, proposal, author=person.author(form_text("reason")))
                flash(gettext("Withdrawn."))
        except ValueError as error:
            raise BadRequest("proposal") from error
        except LedgerUnavailable:
            raise
        except LedgerError as error:
            flash(gettext("Nothing was done: %(error)s", error=problem_in_words(error)), "error")
        return redirect(order_url(*key))

    def _find(number: str) -> Sequence[OrderRecord]:
        # Most numbers are in capitals, and people type small letters.
        for spelling in dict.fromkeys((number, number.upper())):
            if found := store.find_orders(spelling, limit=limit()):
                return found
        return []

    def _known_order() -> OrderKey:
        key = OrderKey(form_text("merchant"), form_text("number"))
        if not store.knows(key):
            raise NotFound
        if not store.is_configured(key.merchant):
            raise UnknownMerchant(key.merchant)
        return key

    return blueprint


def _compare(order: OrderRecord | None, proposal: ProposalRecord) -> Sequence[tuple[str, str, str]]:
    """What the order has and what it would have, for each field that the proposal names."""
    state = order.state if order else None
    now = {
        gettext("status"): str(STATUSES[state.status]) if state else "",
        gettext("amount"): amount_in_words(order.amount, order.amount_unit) if order else "",
        gettext("the gateway's number"): (state.pay_order_no if state else None) or "",
        gettext("pay type"): state.pay_type if state else "",
        gettext("paid at"): local_time(order.paid_at if order else None),
    }
    proposed = (
        str(STATUSES[proposal.status]),
        amount_in_words(proposal.amount, proposal.amount_unit),
        proposal.pay_order_no or "",
        proposal.pay_type,
        local_time(proposal.paid_at),
    )
    return [(field, old, new) for (field, old), new in zip(now.items(), proposed, strict=True) if new]


def _read_resolution(key: OrderKey, announcer: Announcer) -> Resolution:
    """What the form says. Raises BadRequest and MessageInvalid."""
    person = me()
    try:
        status, sequence = OrderStatus(form_text("status")), int(form_text("sequence"))
        paid_at = form_text("paid_at", required=False)
        paid = read_time(paid_at) if paid_at else None
    except ValueError as error:
        raise BadRequest(str(error)) from error
    if status not in RESOLVABLE:
        raise BadRequest("status")
    pay_type = form_text("pay_type", required=False)
    return Resolution(
        order=key,
        status=status,
        stated_by=person.name,
        identity=person.identity,
        reason=form_text("reason"),
        pay_order_no=form_text("pay_order_no", required=False) or None,
        pay_type=pay_type,
        amount=announcer.read_payment(
            key.merchant, amount=form_text("amount", required=False) or None, pay_type=pay_type
        ),
        paid_at=paid,
        seen_sequence=sequence,
    )


def _read_filter() -> tuple[OrderFilter, Mapping[str, str]]:
    """What is chosen, and what is wrong with it by the field. Raises BadRequest where no field can hold it."""
    given, errors = request.args, dict[str, str]()
    amount = given.get("amount", "").strip()
    if amount and read_money(amount, "yuan") is None:
        errors["amount"] = gettext("Enter a number such as 20.00, without a unit.")
    since, until, wrong = read_window(given)
    errors |= wrong
    try:
        status = OrderStatus(given["status"]) if given.get("status") else None
    except ValueError as error:
        raise BadRequest("status") from error
    chosen = OrderFilter(
        merchant=given.get("merchant") or None,
        status=status,
        conflicted=True if given.get("conflicted") else None,
        amount=amount or None,
        updated_since=since,
        updated_before=until,
        after=after(OrderPlace),
    )
    return chosen, errors


def _options(chosen: OrderFilter) -> Sequence[str]:
    given: Mapping[str, Any] = {
        "merchant": chosen.merchant,
        "status": chosen.status,
        "amount": chosen.amount,
        "updated_since": chosen.updated_since and chosen.updated_since.isoformat(),
        "updated_before": chosen.updated_before and chosen.updated_before.isoformat(),
    }
    return [*options(**given), *(["--conflicted"] if chosen.conflicted else [])]
