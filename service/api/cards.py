"""`/v1/cards`: bind a card, in two steps."""

from collections.abc import Mapping, Sequence
from typing import Any

from service.api.answer_schemas import BindingSchema, BoundCardSchema
from service.api.problems import unknown_merchant
from service.api.request_schemas import CardConfirmationSchema, CardSchema
from service.api.routes import Reply, Route
from service.charging.bulkhead import ChargingGateway
from service.charging.withhold import NoGateway
from service.config.settings import ApiScope, MerchantSettings
from service.gateway.messages import ConfirmTiedCardArgs, PreTiedCardArgs

_PROBLEMS = {
    404: "The merchant is not configured.",
    409: "The merchant has no gateway.",
    502: "Surely not done: the gateway refused, or cannot be reached.",
    504: "Unknown: no answer came that settles it. Asking again is harmless.",
}


class Cards:
    """Binds cards for callers. Safe to share between threads."""

    def __init__(self, *, merchants: Mapping[str, MerchantSettings], gateways: Mapping[str, ChargingGateway]) -> None:
        self._merchants = merchants
        self._gateways = gateways

    def routes(self) -> Sequence[Route]:
        """The two steps."""
        return (
            Route(
                method="POST",
                path="/v1/cards",
                name="bindCard",
                scope=ApiScope.CARDS,
                summary="Bind a card: its owner is sent a code",
                description="Personal data is passed on and neither stored nor logged.",
                view=self.bind,
                body=CardSchema(),
                answers={200: BindingSchema()},
                problems=_PROBLEMS,
            ),
            Route(
                method="POST",
                path="/v1/cards/confirm",
                name="confirmCard",
                scope=ApiScope.CARDS,
                summary="Confirm a binding with the code that the card's owner was sent",
                description="Personal data is passed on and neither stored nor logged.",
                view=self.confirm,
                body=CardConfirmationSchema(),
                answers={200: BoundCardSchema()},
                problems=_PROBLEMS,
            ),
        )

    def bind(self, *, caller: str, body: dict[str, Any]) -> Reply:  # noqa: ARG002 - every view's
        """Ask for a binding."""
        gateway = self._gateway(body.pop("merchant"))
        return Reply(status=200, value={"unique_code": gateway.pre_tie_card(PreTiedCardArgs(**body))})

    def confirm(self, *, caller: str, body: dict[str, Any]) -> Reply:  # noqa: ARG002 - every view's
        """Confirm a binding."""
        gateway = self._gateway(body.pop("merchant"))
        return Reply(status=200, value={"protocol_no": gateway.confirm_tied_card(ConfirmTiedCardArgs(**body))})

    def _gateway(self, merchant: str) -> ChargingGateway:
        if merchant not in self._merchants:
            raise unknown_merchant(merchant)
        if merchant not in self._gateways:
            raise NoGateway(merchant)
        return self._gateways[merchant]
