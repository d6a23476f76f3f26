"""The bulkhead: each merchant's gateway has its share of the threads, so that a slow one does not block the others."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

from service.gateway.client import GatewayClient, GatewayClients
from service.gateway.errors import NotSent


class NoGateway(Exception):
    """The merchant has no gateway credentials in the settings, so nothing can be sent for it."""


class BulkheadFull(NotSent):
    """Surely not done: this process already has as many calls to this merchant's gateway under way as it allows."""


class GatewayUnusable(NotSent):
    """Surely not done: the settings of this merchant's gateway cannot be used."""


class Bulkhead:
    """The merchants' gateways, each for a number of calls at once. Safe to share between threads."""

    def __init__(self, gateways: GatewayClients, *, max_calls: int) -> None:
        """`max_calls`: to one gateway at once."""
        self._gateways = gateways
        self._free_calls = {merchant: BoundedSemaphore(max_calls) for merchant in gateways.usable}

    def require_gateway(self, merchant: str) -> None:
        """Raise NoGateway unless the merchant has a gateway, if only one whose settings cannot be used."""
        if merchant not in self._gateways.usable and merchant not in self._gateways.unusable:
            raise NoGateway(merchant)

    @contextmanager
    def enter(self, merchant: str) -> Iterator[GatewayClient]:
        """The merchant's gateway, for one call. Raises NoGateway, GatewayUnusable and BulkheadFull, at once."""
        self.require_gateway(merchant)
        if error := self._gateways.unusable.get(merchant):
            raise GatewayUnusable(f"merchants.{merchant}.gateway: {error}")
        if not self._free_calls[merchant].acquire(blocking=False):
            raise BulkheadFull("too many calls to this merchant's gateway are under way: it is slow to answer")
        try:
            yield self._gateways.usable[merchant]
        finally:
            self._free_calls[merchant].release()
