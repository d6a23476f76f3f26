"""What operators do: endpoints, their deliveries, replays, inquiries, and the audit of it."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from flask import g
from sqlalchemy import Engine

from service.api.blueprint import ApiBlueprint
from service.api.problems import Problem
from service.api.request_schemas import (
    AuditFilterSchema,
    AuthorSchema,
    DeliveryFilterSchema,
    InquiryFilterSchema,
    RedeliverySchema,
    ReplayRequestSchema,
    ReplayWindowSchema,
)
from service.api.response_schemas import (
    AuditSchema,
    DeliveryListSchema,
    EndpointsSchema,
    EndpointTestSchema,
    InquiryListSchema,
    PausedSchema,
    RedeliveredSchema,
    ReplayCountSchema,
    ReplaySchema,
)
from service.config.settings import ApiScope
from service.ledger.audit import Author, list_changes
from service.ledger.cursors import next_cursor
from service.ledger.endpoint_tests import EndpointTestRecord, EndpointTests
from service.ledger.endpoints import DeliveryFilter, Pauses, list_deliveries, read_endpoint_states
from service.ledger.errors import UnknownMerchant
from service.ledger.inquiries import InquiryState
from service.ledger.outbox import Outbox
from service.ledger.replays import ReplayRecord, Replays, ReplayWindow
from service.ledger.store import LedgerStore
from service.runtime.logs import Logger

_ENDPOINT = "/endpoints/<endpoint:name>"
_UNKNOWN_ENDPOINT = {404: "No endpoint of this name is in the settings of this service."}
_UNKNOWN_TEST = {404: "There is no endpoint test with this id."}
_UNKNOWN_REPLAY = {404: "There is no replay with this id."}

_Record = TypeVar("_Record")

_log = Logger(__name__)


def make_operating(
    *,
    engine: Engine,
    store: LedgerStore,
    pauses: Pauses,
    tests: EndpointTests,
    outbox: Outbox,
    replays: Replays,
    endpoints: Sequence[str],
) -> ApiBlueprint:
    """The resources. `endpoints` are the names of those in the settings. Views may run on many threads at once."""
    blueprint = ApiBlueprint(
        "operating", __name__, url_prefix="/v1", description="Endpoints, deliveries, replays, inquiries, and the audit."
    )

    @blueprint.route("/endpoints")
    @blueprint.operation("listEndpoints", scope=ApiScope.READ)
    @blueprint.response(200, EndpointsSchema)
    def list_endpoints() -> dict[str, Any]:
        """List endpoints, and what waits for each"""
        states = read_endpoint_states(engine, endpoints)
        return {"endpoints": [{**asdict(state), "configured": state.endpoint in endpoints} for state in states]}

    @blueprint.route(f"{_ENDPOINT}/pause", methods=["POST"])
    @blueprint.operation("pauseEndpoint", scope=ApiScope.OPERATE, problems=_UNKNOWN_ENDPOINT)
    @blueprint.arguments(AuthorSchema)
    @blueprint.response(200, PausedSchema)
    def pause(body: dict[str, str], name: str) -> dict[str, Any]:
        """Send nothing to an endpoint until it is resumed

        Where it is paused already, that pause stays as it is.
        """
        return {"pause": pauses.pause(_known(name), author=_author(body))}

    @blueprint.route(f"{_ENDPOINT}/resume", methods=["POST"])
    @blueprint.operation("resumeEndpoint", scope=ApiScope.OPERATE)
    @blueprint.arguments(AuthorSchema)
    @blueprint.response(200, PausedSchema)
    def resume(body: dict[str, str], name: str) -> dict[str, Any]:
        """End an endpoint's pause

        It may be an endpoint that is no longer in the settings.
        """
        return {"pause": pauses.resume(name, author=_author(body))}

    @blueprint.route(f"{_ENDPOINT}/test", methods=["POST"])
    @blueprint.operation("testEndpoint", scope=ApiScope.OPERATE, problems=_UNKNOWN_ENDPOINT)
    @blueprint.arguments(AuthorSchema)
    @blueprint.response(202, EndpointTestSchema)
    def request_test(body: dict[str, str], name: str) -> EndpointTestRecord:
        """Have a test event sent to an endpoint

        A dispatcher sends it within seconds, also while the endpoint is paused. It has the type `payment.test` and
        concerns no payment. Each request is a test of its own.
        """
        return tests.request(_known(name), author=_author(body))

    @blueprint.route("/endpoint-tests/<row_number:number>")
    @blueprint.operation("showEndpointTest", scope=ApiScope.READ, problems=_UNKNOWN_TEST)
    @blueprint.response(200, EndpointTestSchema)
    def show_test(number: int) -> EndpointTestRecord:
        """Show what became of an endpoint test"""
        return _found(tests.load(number), "endpoint test")

    @blueprint.route(f"{_ENDPOINT}/redeliver", methods=["POST"])
    @blueprint.operation("redeliver", scope=ApiScope.OPERATE, problems=_UNKNOWN_ENDPOINT)
    @blueprint.arguments(RedeliverySchema)
    @blueprint.response(200, RedeliveredSchema)
    def redeliver(body: dict[str, Any], name: str) -> dict[str, Any]:
        """Deliver events to an endpoint again: some, or all that are parked"""
        endpoint, author, ids = _known(name), _author(body), body.get("event_ids")
        if ids is None:
            return {"due_again": outbox.replay_parked(endpoint=endpoint, author=author)}
        return {"due_again": outbox.replay(ids, endpoint=endpoint, author=author)}

    @blueprint.route("/deliveries")
    @blueprint.operation("listDeliveries", scope=ApiScope.READ)
    @blueprint.arguments(DeliveryFilterSchema, location="query")
    @blueprint.response(200, DeliveryListSchema)
    def list_page(query: tuple[DeliveryFilter, int]) -> dict[str, Any]:
        """List deliveries, those of the oldest events first

        All that are open or parked, or those of one order or event.
        """
        chosen, limit = query
        page = list_deliveries(engine, chosen, limit=limit)
        return {"deliveries": page, "next": next_cursor(page, limit=limit)}

    @blueprint.route("/replays/count")
    @blueprint.operation("countReplay", scope=ApiScope.READ, problems=_UNKNOWN_ENDPOINT)
    @blueprint.arguments(ReplayWindowSchema, location="query")
    @blueprint.response(200, ReplayCountSchema)
    def count_replay(window: ReplayWindow) -> dict[str, int]:
        """Count the events of a window that were meant for an endpoint"""
        _known(window.endpoint)
        return {"events": replays.count(window)}

    @blueprint.route("/replays", methods=["POST"])
    @blueprint.operation(
        "requestReplay",
        scope=ApiScope.OPERATE,
        problems={**_UNKNOWN_ENDPOINT, 409: "The window has another number of events than `expected`."},
    )
    @blueprint.arguments(ReplayRequestSchema)
    @blueprint.response(202, ReplaySchema)
    def request_replay(body: dict[str, Any]) -> ReplayRecord:
        """Deliver a window of events to an endpoint again

        The dispatchers carry it out, slowly enough for new events to go on. Each request is a replay of its own.
        """
        _known(body["window"].endpoint)
        return replays.request(
            body["window"], expected=body["expected"], per_second=body["per_second"], author=_author(body)
        )

    @blueprint.route("/replays/<row_number:number>")
    @blueprint.operation("showReplay", scope=ApiScope.READ, problems=_UNKNOWN_REPLAY)
    @blueprint.response(200, ReplaySchema)
    def show_replay(number: int) -> ReplayRecord:
        """Show how far a replay is"""
        return _found(replays.load(number), "replay")

    @blueprint.route("/replays/<row_number:number>/stop", methods=["POST"])
    @blueprint.operation("stopReplay", scope=ApiScope.OPERATE, problems=_UNKNOWN_REPLAY)
    @blueprint.arguments(AuthorSchema)
    @blueprint.response(200, ReplaySchema)
    def stop_replay(body: dict[str, str], number: int) -> ReplayRecord:
        """Stop a replay

        What is due already is still delivered.
        """
        return _found(replays.stop(number, author=_author(body)), "replay")

    @blueprint.route("/inquiries")
    @blueprint.operation("listInquiries", scope=ApiScope.READ, problems={404: "The merchant is not configured."})
    @blueprint.arguments(InquiryFilterSchema, location="query")
    @blueprint.response(200, InquiryListSchema)
    def list_inquiries(query: dict[str, Any]) -> dict[str, Any]:
        """List a merchant's inquiries in one state, by order number"""
        merchant, state, limit = query["merchant"], query["state"], query["limit"]
        if not store.is_configured(merchant):
            raise UnknownMerchant(merchant)
        page = store.list_inquiries(merchant, InquiryState(state), after=query["after"], limit=limit)
        listed = [{**asdict(inquiry), **order._asdict()} for order, inquiry in page]
        return {"inquiries": listed, "next": page[-1][0].biz_order_no if len(page) == limit else None}

    @blueprint.route("/audit")
    @blueprint.operation("listChanges", scope=ApiScope.READ)
    @blueprint.arguments(AuditFilterSchema, location="query")
    @blueprint.response(200, AuditSchema)
    def list_audit(query: dict[str, Any]) -> dict[str, Any]:
        """List what operators have changed and decided, the latest first"""
        return {"changes": list_changes(engine, **query)}

    def _known(name: str) -> str:
        if name not in endpoints:
            raise Problem(
                status=404,
                kind="unknown-endpoint",
                title="No endpoint of this name is configured.",
                detail=f"The settings of this service have: {', '.join(endpoints) or 'none'}.",
            )
        return name

    return blueprint


def _author(body: dict[str, Any]) -> Author:
    author: Author = g.caller.author(body)
    _log.info("operator_change", operation=g.operation, caller=g.caller.name)
    return author


def _found(record: _Record | None, what: str) -> _Record:
    if record is None:
        raise Problem(
            status=404,
            kind=f"unknown-{what.replace(' ', '-')}",
            title=f"There is no {what} with this id.",
            detail="Check the id.",
        )
    return record
