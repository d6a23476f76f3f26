"""notify_url: the address that an order's callback comes in on."""

from collections.abc import Mapping

from service.gateway.notify_tokens import NotifyTokens


class NotifyUrls:
    """Makes every merchant's addresses. Safe to share between threads."""

    def __init__(self, *, public_url: str, tokens: Mapping[str, NotifyTokens | None]) -> None:
        """`public_url` is the receiver's, without a path; a merchant without tokens has one address for all orders."""
        self._public_url = public_url
        self._tokens = tokens

    def of_order(self, merchant: str, biz_order_no: str) -> str:
        """The order's own address, unguessable, or the merchant's common one. The same every time, for logs too secret.

        Raises KeyError for a merchant that is not configured, ValueError for what is no order number.
        """
        tokens = self._tokens[merchant]
        common = f"{self._public_url}/notify/{merchant}"
        return common if tokens is None else f"{common}/{tokens.mint(biz_order_no)}"
