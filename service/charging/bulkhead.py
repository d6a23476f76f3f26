"""Lanes: a share of the threads for each merchant's gateway, so that one that is slow or wrong troubles nobody else."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Protocol

from service.gateway.client import AcceptedOrder
from service.gateway.errors import NotSent
from service.gateway.messages import ConfirmTiedCardArgs, PreTiedCardArgs, SingleWithholdArgs


class BulkheadFull(NotSent):
    """Surely not done: as many calls to this merchant's gateway are under way as this process allows."""


class GatewayUnusable(NotSent):
    """Surely not done: the settings of this merchant's gateway cannot be used."""


class Gateway(Protocol):
    """What callers of the API may have a gateway do; `GatewayClient` says what each raises."""

    def pre_tie_card(self, args: PreTiedCardArgs) -> str:
        """Ask for a card to be bound."""

    def confirm_tied_card(self, args: ConfirmTiedCardArgs) -> str:
        """Confirm a binding."""

    def withhold(self, args: SingleWithholdArgs) -> AcceptedOrder:
        """Charge a card."""


class Bulkhead:
    """A `Gateway` to which only so many calls are under way at once; further ones raise BulkheadFull, at once."""

    def __init__(self, *, gateway: Gateway, places: int) -> None:
        self._gateway = gateway
        self._places = BoundedSemaphore(places)

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
        if not self._places.acquire(blocking=False):
            raise BulkheadFull("too many calls to this merchant's gateway are under way: it is slow to answer")
        try:
            yield
        finally:
            self._places.release()


class UnusableGateway:
    """The `Gateway` of a merchant whose settings of it cannot be used: nothing is ever sent."""

    def __init__(self, *, merchant: str, reason: str) -> None:
        self._what = f"merchants.{merchant}.gateway: {reason}"

    def pre_tie_card(self, args: PreTiedCardArgs) -> str:  # noqa: ARG002 - the protocol's
        """Raise GatewayUnusable."""
        raise GatewayUnusable(self._what)

    def confirm_tied_card(self, args: ConfirmTiedCardArgs) -> str:  # noqa: ARG002
        """Raise GatewayUnusable."""
        raise GatewayUnusable(self._what)

    def withhold(self, args: SingleWithholdArgs) -> AcceptedOrder:  # noqa: ARG002
        """Raise GatewayUnusable."""
        raise GatewayUnusable(self._what)
