"""One merchant's gateway, as the inquirer asks it."""

from dataclasses import dataclass

from service.config.settings import MerchantSettings
from service.domain.claims import Claim
from service.gateway.client import GatewayClient
from service.gateway.errors import CallFailed
from service.gateway.order_claims import claim_from_query


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayAnswer:
    """The gateway's answer to one question."""

    #: What it says about the order, stated when it was asked; None where it does not have the order.
    claim: Claim | None
    request_id: str
    #: Why it does not have the order, for people; no personal data.
    detail: str = ""


class NoAnswer(Exception):
    """No answer came that says anything about the order. The message says why, for people; no personal data."""

    def __init__(self, reason: str, *, request_id: str = "") -> None:
        super().__init__(reason)
        #: The request's id, for questions to the gateway's staff; "" where no request was made.
        self.request_id = request_id


class MerchantGateway:
    """Asks in one merchant's name by single-order-query. Safe to share between threads."""

    def __init__(
        self,
        *,
        client: GatewayClient,
        merchant: MerchantSettings,
        timeout_seconds: float,
    ) -> None:
        """`timeout_seconds` is the client's time limit."""
        self._client = client
        self._merchant = merchant
        self.timeout_seconds = timeout_seconds

    def ask(self, biz_order_no: str) -> GatewayAnswer:
        """Ask about an order exactly once, within the time limit. Raises NoAnswer."""
        try:
            # The caller counts questions, so the client must not retry.
            queried = self._client.query(biz_order_no, max_tries=1)
        except CallFailed as error:
            raise NoAnswer(str(error), request_id=error.request_id) from error
        if queried.order is None:
            return GatewayAnswer(claim=None, request_id=queried.request_id, detail=queried.message)
        claim = claim_from_query(queried.order, merchant=self._merchant, asked_at=queried.asked_at)
        return GatewayAnswer(claim=claim, request_id=queried.request_id)
