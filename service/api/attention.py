"""`/v1/attention`, `/v1/dead-letters` and `/v1/report`: what waits for a person, and how complete each day was."""

from collections.abc import Mapping
from datetime import tzinfo
from typing import Any

from flask import g

from service.api.blueprint import ApiBlueprint
from service.api.request_schemas import (
    AcknowledgementSchema,
    AttentionFilterSchema,
    DeadLetterRequestSchema,
    ReportFilterSchema,
    write_attention_cursor,
)
from service.api.response_schemas import (
    AttentionItemSchema,
    AttentionListSchema,
    DeadLetterListSchema,
    DeadLetterSchema,
    ReportSchema,
)
from service.config.settings import ApiScope
from service.ledger.attention import AttentionFilter, AttentionItem, AttentionList
from service.ledger.dead_letters import DeadLetterRecord, DeadLetterStore
from service.ledger.errors import DeadLetterUnknown, UnknownMerchant
from service.ledger.reports import Report, Reports
from service.runtime.logs import Logger

_log = Logger(__name__)


def make_attention(*, attention: AttentionList) -> ApiBlueprint:
    """The resource. Its views may run on many threads at once."""
    blueprint = ApiBlueprint("attention", __name__, url_prefix="/v1/attention", description="What waits for a person.")

    @blueprint.route("")
    @blueprint.operation("listAttention", scope=ApiScope.READ)
    @blueprint.arguments(AttentionFilterSchema, location="query")
    @blueprint.response(200, AttentionListSchema)
    def list_attention(query: tuple[AttentionFilter, int]) -> dict[str, Any]:
        """List what waits for a person, the longest first

        Items that somebody has acknowledged are left out, unless `acknowledged` is true. Many conflicts of one merchant
        about the same field are one item; `group` lists its conflicts.
        """
        chosen, limit = query
        items = attention.list(chosen, limit=limit)
        return {"items": items, "next": write_attention_cursor(items[-1]) if len(items) == limit else None}

    @blueprint.route("/acknowledgements", methods=["POST"])
    @blueprint.operation(
        "acknowledge", scope=ApiScope.RESOLVE, problems={404: "Nothing of this id waits for a person."}
    )
    @blueprint.arguments(AcknowledgementSchema)
    @blueprint.response(200, AttentionItemSchema)
    def acknowledge(body: dict[str, str]) -> AttentionItem:
        """Take an item out of sight until it changes, in a person's name

        It settles nothing: the item is listed again when it changes, and its metric counts it as acknowledged.
        """
        item = attention.acknowledge(body["id"], name=g.caller.speaking_for(body["name"]), note=body["note"])
        _log.info("attention_acknowledged", caller=g.caller.name, kind=item.kind, merchant=item.merchant)
        return item

    return blueprint


def make_report(*, reports: Reports, zones: Mapping[str, tzinfo]) -> ApiBlueprint:
    """The resource `/v1/report`. `zones`: each merchant's time zone."""
    blueprint = ApiBlueprint(
        "report", __name__, url_prefix="/v1/report", description="How complete each day was, per merchant."
    )

    @blueprint.route("")
    @blueprint.operation("readReport", scope=ApiScope.READ, problems={404: "The merchant is not configured."})
    @blueprint.arguments(ReportFilterSchema, location="query")
    @blueprint.response(200, ReportSchema)
    def read_report(query: dict[str, Any]) -> Report:
        """Report how complete some days were, and name every order that is not final

        Each day is a day in the merchant's own time zone. Orders are counted on the day on which they became known,
        with their present state.
        """
        merchant = query.pop("merchant", None)
        if merchant is not None and merchant not in zones:
            raise UnknownMerchant(merchant)
        return reports.read_report(zones, **query, only=() if merchant is None else [merchant])

    return blueprint


def make_dead_letters(*, letters: DeadLetterStore) -> ApiBlueprint:
    """The resource `/v1/dead-letters`. Its views may run on many threads at once."""
    blueprint = ApiBlueprint(
        "dead-letters", __name__, url_prefix="/v1/dead-letters", description="Messages that could not be recorded."
    )

    @blueprint.route("")
    @blueprint.operation("listDeadLetters", scope=ApiScope.READ)
    @blueprint.response(200, DeadLetterListSchema)
    def list_letters() -> dict[str, Any]:
        """List dead letters, the oldest first, at most 1000"""
        return {"dead_letters": letters.load_open(limit=1000)}

    @blueprint.route("/<dead_letter:name>")
    @blueprint.operation("showDeadLetter", scope=ApiScope.READ, problems={404: "No dead letter ever had this id."})
    @blueprint.response(200, DeadLetterSchema)
    def show(name: str) -> DeadLetterRecord:
        """Show a dead letter, or what became of it"""
        if not (found := letters.load([name])):
            raise DeadLetterUnknown(name)
        return found[0]

    @blueprint.route("/requests", methods=["POST"])
    @blueprint.operation(
        "settleDeadLetters",
        scope=ApiScope.RESOLVE,
        problems={404: "One of the ids is no dead letter; nothing is done."},
    )
    @blueprint.arguments(DeadLetterRequestSchema)
    @blueprint.response(202, DeadLetterListSchema)
    def settle(body: dict[str, Any]) -> dict[str, Any]:
        """Have dead letters replayed or dropped, in a person's name

        The ledger role does it within seconds; then `settled_at` and `outcome` of each say what became of it. A
        replayed message that was recorded before changes nothing. A dropped one is deleted for good.
        """
        letters.request(body["ids"], body["action"], author=g.caller.author(body))
        _log.info("dead_letters_requested", caller=g.caller.name, action=body["action"], count=len(body["ids"]))
        return {"dead_letters": letters.load(body["ids"])}

    return blueprint
