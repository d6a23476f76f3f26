"""A gateway that is asked by single-order-query."""

from consumers.gateway import Answer, NoAnswer
from service.config.settings import MerchantSettings
from service.gateway.client import GatewayClient
from service.gateway.errors import CallFailed
from service.gateway.order_claims import claim_from_query


class QueriedGateway:
    """Asks in one merchant's name, and reads the answers as claims. Safe to share between threads."""

    def __init__(self, *, client: GatewayClient, merchant: MerchantSettings) -> None:
        self._client = client
        self._merchant = merchant

    def ask(self, biz_order_no: str) -> Answer:
        """Ask about an order exactly once. Raises NoAnswer."""
        try:
            # Whoever asks counts: a second try of the client's own would be asked and not counted.
            queried = self._client.query(biz_order_no, most_tries=1)
        except CallFailed as error:
            raise NoAnswer(str(error), request_id=error.request_id) from error
        if queried.order is None:
            return Answer(claim=None, request_id=queried.request_id, detail=queried.message)
        claim = claim_from_query(
            queried.order,
            merchant=self._merchant,
            asked_at=queried.asked_at,
        )
        return Answer(claim=claim, request_id=queried.request_id)
