"""Bulkheads: each merchant's gateway has its share of the threads, so that a slow one does not block the others."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Protocol

from service.gateway.client import AcceptedOrder
from service.gateway.errors import NotSent
from service.gateway.requests import ConfirmTiedCardArgs, PreTiedCardArgs, SingleWithholdArgs


class BulkheadFull(NotSent):
    """Surely not done: this process already has as many calls to this merchant's gateway under way as it allows."""


class GatewayUnusable(NotSent):
    """Surely not done: the settings of this merchant's gateway cannot be used."""


class ChargingGateway(Protocol):
    """The gateway methods that the API offers. `GatewayClient` documents what each raises."""

    def pre_tie_card(self, args: PreTiedCardArgs) -> str:
        """Ask for a card to be bound."""

    def confirm_tied_card(self, args: ConfirmTiedCardArgs) -> str:
        """Confirm a binding."""

    def withhold(self, args: SingleWithholdArgs) -> AcceptedOrder:
        """Charge a card."""


class Bulkhead:
    """Limits how many calls to a `ChargingGateway` run at once. A call over the limit raises BulkheadFull at once."""

    def __init__(self, *, gateway: ChargingGateway, max_calls: int) -> None:
        self._gateway = gateway
        self._free_calls = BoundedSemaphore(max_calls)

    def pre_tie_card(self, args: PreTiedCardArgs) -> str:
        """Ask for a card to be bound."""
        with self._enter():
            return self._gateway.pre_tie_card(args)

    def confirm_tied_card(self, args: ConfirmTiedCardArgs) -> str:
        """Confirm a binding."""
        with self._enter():
            return self._gateway.confirm_tied_card(args)

    def withhold(self, args: SingleWithholdArgs) -> AcceptedOrder:
        """Charge a card."""
        with self._enter():
            return self._gateway.withhold(args)

    @contextmanager
    def _enter(self) -> Iterator[None]:
        if not self._free_calls.acquire(blocking=False):
            raise BulkheadFull("too many calls to this merchant's gateway are under way: it is slow to answer")
        try:
            yield
        finally:
            self._free_calls.release()


class UnusableGateway:
    """Stands in for a merchant's gateway whose settings cannot be used. It sends nothing; every call raises."""

    def __init__(self, *, merchant: str, reason: str) -> None:
        self._detail = f"merchants.{merchant}.gateway: {reason}"

    def pre_tie_card(self, args: PreTiedCardArgs) -> str:  # noqa: ARG002 - the protocol's
        """Raise GatewayUnusable."""
        raise GatewayUnusable(self._detail)

    def confirm_tied_card(self, args: ConfirmTiedCardArgs) -> str:  # noqa: ARG002
        """Raise GatewayUnusable."""
        raise GatewayUnusable(self._detail)

    def withhold(self, args: SingleWithholdArgs) -> AcceptedOrder:  # noqa: ARG002
        """Raise GatewayUnusable."""
        raise GatewayUnusable(self._detail)
