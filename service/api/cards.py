"""`/v1/cards` and `/v1/withholds`: bind a card and charge it, without knowing the gateway's ciphers."""

from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import Any

from flask import g

from service.api.blueprint import ApiBlueprint
from service.api.request_schemas import CardConfirmationSchema, CardSchema, WithholdSchema
from service.api.response_schemas import BindingSchema, BoundCardSchema, SentSchema
from service.charging.announce import OrderDraft
from service.charging.bulkhead import Bulkhead
from service.charging.withhold import Payer, SentOrder, Withholder
from service.config.settings import ApiScope
from service.gateway.client import GatewayClient
from service.gateway.requests import ConfirmTiedCardArgs, PreTiedCardArgs
from service.ledger.errors import UnknownMerchant
from service.runtime.logs import Logger

_CARD_PROBLEMS = {
    404: "The merchant is not configured.",
    409: "The merchant has no gateway.",
    502: "Surely not done: the gateway refused, or cannot be reached.",
    504: "Unknown: the gateway gave no answer that settles it. Sending the same request again is harmless.",
}
_WITHHOLD_PROBLEMS = {
    404: "The merchant is not configured.",
    409: "The order was announced before with other values; or it already has a status, though it was not sent from "
    "here; or the merchant has no gateway.",
    502: "Surely not done: the gateway cannot be reached. The same request may be sent again.",
}

_log = Logger(__name__)


def make_cards(*, merchants: Collection[str], gateways: Bulkhead) -> ApiBlueprint:
    """The resource `/v1/cards`. Its views may run on many threads at once. `merchants` are the configured ones."""
    blueprint = ApiBlueprint("cards", __name__, url_prefix="/v1/cards", description="Bank cards, bound in two steps.")

    def gateway_of(merchant: str) -> AbstractContextManager[GatewayClient]:
        if merchant not in merchants:
            raise UnknownMerchant(merchant)
        return gateways.enter(merchant)

    @blueprint.route("", methods=["POST"])
    @blueprint.operation("bindCard", scope=ApiScope.CARDS, problems=_CARD_PROBLEMS)
    @blueprint.arguments(CardSchema)
    @blueprint.response(200, BindingSchema)
    def bind(body: dict[str, Any]) -> dict[str, str]:
        """Bind a card: its owner is sent a code

        Personal data is passed on to the gateway and neither stored nor logged.
        """
        with gateway_of(body.pop("merchant")) as gateway:
            return {"unique_code": gateway.pre_tie_card(PreTiedCardArgs(**body))}

    @blueprint.route("/confirm", methods=["POST"])
    @blueprint.operation("confirmCard", scope=ApiScope.CARDS, problems=_CARD_PROBLEMS)
    @blueprint.arguments(CardConfirmationSchema)
    @blueprint.response(200, BoundCardSchema)
    def confirm(body: dict[str, Any]) -> dict[str, str]:
        """Confirm a binding with the code that the card's owner was sent

        Personal data is passed on to the gateway and neither stored nor logged.
        """
        with gateway_of(body.pop("merchant")) as gateway:
            return {"protocol_no": gateway.confirm_tied_card(ConfirmTiedCardArgs(**body))}

    return blueprint


def make_withholds(*, withholder: Withholder) -> ApiBlueprint:
    """The resource `/v1/withholds`. Its view may run on many threads at once."""
    blueprint = ApiBlueprint("withholds", __name__, url_prefix="/v1/withholds", description="Charges of cards.")

    @blueprint.route("", methods=["POST"])
    @blueprint.operation("withhold", scope=ApiScope.WITHHOLD, problems=_WITHHOLD_PROBLEMS)
    @blueprint.arguments(WithholdSchema)
    @blueprint.response(202, SentSchema)
    def withhold(body: tuple[OrderDraft, Payer]) -> SentOrder:
        """Announce an order and charge a card for it

        The order is announced, and committed, before anything is sent. It is sent once: the same request again sends
        nothing and returns what is known of the first time, unless that was surely not done. `accepted` does not mean
        paid: the order's events report that. `unknown` does not mean failed: the gateway is asked. Personal data is
        passed on to the gateway and neither stored nor logged.
        """
        draft, payer = body
        sent = withholder.withhold(draft, payer, sent_by=f"API token {g.caller.name}")
        _log.info(
            "withhold_answered",
            caller=g.caller.name,
            merchant=draft.merchant,
            biz_order_no=draft.biz_order_no,
            outcome=sent.withhold.outcome,
        )
        return sent

    return blueprint
