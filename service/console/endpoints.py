"""Endpoints: their state, what waits for each, and what an operator does: pause, resume, test, deliver again."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from flask import Blueprint, flash, redirect, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext, lazy_gettext, ngettext
from sqlalchemy import Engine
from werkzeug.exceptions import BadRequest, NotFound
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
    page,
    read_window,
    require,
)
from service.console.words import DELIVERY_STATES, EVENTS, REPLAY_STATES, STATUSES, TEST_STATES, people_in_words
from service.domain.claims import OrderStatus
from service.ledger.audit import Author
from service.ledger.endpoint_tests import EndpointTests, EndpointTestState
from service.ledger.endpoints import (
    DeliveryFilter,
    DeliveryPlace,
    DeliveryState,
    EndpointState,
    ListedDelivery,
    Pauses,
    list_deliveries,
    list_last_delivered,
    read_endpoint_states,
)
from service.ledger.errors import ReplayCountDiffers
from service.ledger.outbox import Outbox
from service.ledger.replays import DEFAULT_PER_SECOND, Replays, ReplayState, ReplayWindow
from service.ledger.totals import Resolution, Series, read_totals

_ENDPOINTS: Sequence[Column[EndpointState]] = (
    Column(
        title=lazy_gettext("endpoint"),
        value=lambda state: state.endpoint,
        link=lambda state: url_for("endpoints.show", name=state.endpoint),
        is_identifier=True,
    ),
    Column(title=lazy_gettext("state"), value=lambda state: health_of(state)),
    Column(title=lazy_gettext("waiting"), value=lambda state: state.open, is_number=True),
    Column(title=lazy_gettext("failing since"), value=lambda state: state.failing_since),
    Column(title=lazy_gettext("oldest event"), value=lambda state: state.oldest_open_at),
    Column(title=lazy_gettext("given up"), value=lambda state: state.parked, is_number=True),
    Column(title=lazy_gettext("last delivered"), value=lambda state: state.last_delivered_at),
    Column(title=lazy_gettext("last error"), value=lambda state: state.last_error),
)
_DELIVERIES: Sequence[Column[ListedDelivery]] = (
    Column(title=lazy_gettext("event made"), value=lambda delivery: delivery.created_at),
    Column(
        title=lazy_gettext("order"),
        value=lambda delivery: f"{delivery.merchant} {delivery.biz_order_no}",
        link=lambda delivery: order_url(delivery.merchant, delivery.biz_order_no),
        is_identifier=True,
    ),
    Column(title=lazy_gettext("event"), value=lambda delivery: EVENTS[delivery.type]),
    Column(title=lazy_gettext("state"), value=lambda delivery: DELIVERY_STATES[delivery.state]),
    Column(title=lazy_gettext("tries"), value=lambda delivery: delivery.attempts, is_number=True),
    Column(title=lazy_gettext("last error"), value=lambda delivery: delivery.last_error),
)
_NEXT_TRY: Column[ListedDelivery] = Column(
    title=lazy_gettext("next try"),
    value=lambda delivery: delivery.due_at if delivery.state == DeliveryState.OPEN else None,
)


_SHOWN_REPLAYS = 5


def make_endpoints(
    *,
    engine: Engine,
    pauses: Pauses,
    tests: EndpointTests,
    outbox: Outbox,
    replays: Replays,
    endpoints: Sequence[str],
    clock: Callable[[], datetime],
) -> Blueprint:
    """The pages. `endpoints` are those in the settings. Views may run on many threads at once."""
    blueprint = Blueprint("endpoints", __name__, url_prefix="/endpoints")

    @blueprint.route("")
    def list_all() -> str | Response:
        rates = _success_rates()
        rate: Column[EndpointState] = Column(
            title=lazy_gettext("successful tries in 24 h"),
            value=lambda state: rates.get(state.endpoint, ""),
            is_number=True,
        )
        listing = Listing(columns=[*_ENDPOINTS, rate], items=read_endpoint_states(engine, endpoints))
        return list_page("endpoints.html", "endpoints", listing, command=command("endpoints", "list"))

    @blueprint.route("/<name>")
    def show(name: str) -> str | Response:
        found = _find(name)
        state = _state(request.args.get("state"))
        _, _, window_errors = read_window(request.args)
        chosen = DeliveryFilter(endpoint=name, state=state, after=after(DeliveryPlace))
        # Of all that was delivered, an index finds only the last.
        deliveries = (
            list_deliveries(engine, chosen, limit=limit())
            if chosen.is_narrow
            else list_last_delivered(engine, name, limit=limit())
        )
        number = request.args.get("test", type=int)
        return list_page(
            "endpoint.html",
            f"deliveries-{name}",
            Listing(
                # Nothing is sent to a paused endpoint.
                columns=_DELIVERIES if found.pause else [*_DELIVERIES, _NEXT_TRY],
                items=deliveries,
                next_url=next_url(deliveries) if chosen.is_narrow else None,
            ),
            endpoint=found,
            is_configured=name in endpoints,
            health=health_of(found),
            success_rate=_success_rates(endpoint=name).get(name, ""),
            state=state,
            test=tests.load(number) if number is not None else None,
            test_is_under_way=lambda test: test.state in (EndpointTestState.REQUESTED, EndpointTestState.SENDING),
            replays=replays.list_last(name, limit=_SHOWN_REPLAYS),
            running=ReplayState.RUNNING,
            given=request.args,
            now=(now := clock()),
            # What a field takes has no seconds, and the last events are wanted, too.
            next_minute=now + timedelta(minutes=1),
            windows=_windows(now, found.failing_since),
            window_errors=window_errors,
            statuses=STATUSES,
            delivery_states=DELIVERY_STATES,
            replay_states=REPLAY_STATES,
            test_states=TEST_STATES,
            caption=gettext("Deliveries, those of the oldest events first")
            if chosen.is_narrow
            else gettext("The last deliveries, the last first"),
            command=command("deliveries", "list", *options(endpoint=name, state=state)) if chosen.is_narrow else None,
        )

    @blueprint.route("/<name>/pause", methods=["POST"])
    def pause(name: str) -> Response:
        author = _operator()
        paused_by = pauses.pause(_configured(name), author=author).paused_by
        if paused_by == author.name:
            flash(gettext("Paused: its events wait, in order, until somebody resumes it."))
        else:
            flash(gettext("%(person)s has paused it already.", person=people_in_words(paused_by)))
        return redirect(url_for(".show", name=name))

    @blueprint.route("/<name>/resume", methods=["POST"])
    def resume(name: str) -> Response:
        author = _operator()
        if pauses.resume(_find(name).endpoint, author=author):
            flash(gettext("Resumed: what waits is delivered in order, each event when its next try is due."))
        else:
            flash(gettext("It was not paused any more. Nothing was done."))
        return redirect(url_for(".show", name=name))

    @blueprint.route("/<name>/test", methods=["POST"])
    def test(name: str) -> Response:
        author = _operator()
        requested = tests.request(_configured(name), author=author)
        return redirect(url_for(".show", name=name, test=requested.id))

    @blueprint.route("/<name>/parked", methods=["POST"])
    def deliver_parked(name: str) -> Response:
        author = _operator()
        count = outbox.replay_parked(endpoint=_configured(name), author=author)
        flash(ngettext("%(num)s event is delivered again.", "%(num)s events are delivered again.", count))
        return redirect(url_for(".show", name=name))

    @blueprint.route("/<name>/replay")
    def count_replay(name: str) -> ResponseReturnValue:
        if read_window(request.args)[2]:
            # Back to the form, which shows what is wrong with which field.
            given: dict[str, Any] = {field: request.args.get(field) for field in ("since", "until", "status")}
            return redirect(url_for(".show", name=name, _anchor="replaying", **given))
        window = _read_window(_configured(name))
        words = ["--endpoint", name, "--since", window.since.isoformat(), "--until", window.until.isoformat()]
        return page(
            "replay.html",
            window=window,
            events=replays.count(window),
            pause=_find(name).pause,
            earlier=[
                one
                for one in replays.list_last(name, limit=_SHOWN_REPLAYS)
                if one.window.since < window.until and window.since < one.window.until
            ],
            statuses=STATUSES,
            replay_states=REPLAY_STATES,
            command=command("replay", *words, *options(status=window.status, order_type=window.order_type)),
        )

    @blueprint.route("/<name>/replay", methods=["POST"])
    def request_replay(name: str) -> Response:
        author = _operator()
        window = _read_window(_configured(name))
        try:
            expected = int(form_text("expected"))
            replays.request(window, expected=expected, per_second=DEFAULT_PER_SECOND, author=author)
        except ValueError as error:
            raise BadRequest("expected") from error
        except ReplayCountDiffers as error:
            text = ngettext("The window has %(num)s event now.", "The window has %(num)s events now.", error.found)
            flash(gettext("%(found)s Nothing was done; count again.", found=text))
        return redirect(url_for(".show", name=name))

    @blueprint.route("/<name>/replay/stop", methods=["POST"])
    def stop_replay(name: str) -> Response:
        author = _operator()
        number = request.form.get("replay", type=int)
        if number is None or replays.stop(number, author=author) is None:
            raise NotFound
        return redirect(url_for(".show", name=name))

    def _success_rates(**only: str) -> Mapping[str, str]:
        """The share of each endpoint's tries that delivered an event, in the last 24 hours, and their number."""
        until = clock()
        found = read_totals(
            engine,
            Series.DELIVERIES,
            since=until - timedelta(hours=24),
            until=until,
            resolution=Resolution.HOUR,
            by=("endpoint", "outcome"),
            only=only,
        )
        tries: Counter[str] = Counter()
        delivered: Counter[str] = Counter()
        for (endpoint, outcome), points in found.items():
            count = sum(point.value for point in points)
            tries[endpoint] += count
            delivered[endpoint] += count if outcome == "delivered" else 0
        texts = {}
        for name, count in (+tries).items():
            share = f"{delivered[name] / count:.1%}"
            texts[name] = gettext("%(good)s of %(all)s (%(share)s)", good=delivered[name], all=count, share=share)
        return texts

    def _find(name: str) -> EndpointState:
        for state in read_endpoint_states(engine, endpoints):
            if state.endpoint == name:
                return state
        raise NotFound

    def _configured(name: str) -> str:
        if name not in endpoints:
            raise NotFound
        return name

    return blueprint


def health_of(state: EndpointState) -> str:
    """An endpoint's state in words."""
    if state.pause is not None:
        return str(gettext("paused"))
    if state.open and state.last_error:
        return str(gettext("failing"))
    return str(gettext("events were given up") if state.parked else gettext("healthy"))


def _windows(now: datetime, failing_since: datetime | None) -> Sequence[tuple[str, datetime]]:
    """Windows up to now that somebody may want to deliver again, and when each begins."""
    windows = [
        (gettext("the last hour"), now - timedelta(hours=1)),
        (gettext("the last 24 hours"), now - timedelta(hours=24)),
    ]
    return [*windows, (gettext("since it began to fail"), failing_since)] if failing_since else windows


def _operator() -> Author:
    person = require(ApiScope.OPERATE)
    return person.author(form_text("reason"))


def _state(text: str | None) -> DeliveryState:
    try:
        return DeliveryState(text) if text else DeliveryState.OPEN
    except ValueError as error:
        raise BadRequest("state") from error


def _read_window(endpoint: str) -> ReplayWindow:
    given = request.values
    since, until, errors = read_window(given)
    if since is None or until is None or errors:
        raise BadRequest("since, until")
    try:
        status = OrderStatus(given["status"]) if given.get("status") else None
    except ValueError as error:
        raise BadRequest("status") from error
    return ReplayWindow(endpoint=endpoint, since=since, until=until, status=status)
