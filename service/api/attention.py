"""`/v1/attention`: what waits for a person."""

from typing import Any

from flask import g

from service.api.blueprint import ApiBlueprint
from service.api.request_schemas import AcknowledgementSchema, AttentionFilterSchema
from service.api.response_schemas import AttentionItemSchema, AttentionListSchema
from service.config.settings import ApiScope
from service.ledger.attention import AttentionFilter, AttentionItem, AttentionList
from service.ledger.cursors import next_cursor
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
        return {"items": items, "next": next_cursor(items, limit=limit)}

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
