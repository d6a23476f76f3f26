"""`/v1/orders`: announce, list, show, ask, resolve."""

from collections.abc import Sequence
from typing import Any

import structlog

from service.api.answer_schemas import (
    AnnouncedOrdersSchema,
    HistorySchema,
    InquirySchema,
    OrderListSchema,
    ResolvedSchema,
)
from service.api.cursors import write_cursor
from service.api.problems import Fault, Problem, invalid, invalid_message, unknown_order
from service.api.request_schemas import MOST_ORDERS, AnnouncementsSchema, OrderFilterSchema, ResolutionSchema
from service.api.routes import Reply, Route
from service.charging.announce import AnnouncedOrder, Announcer, OrderDraft
from service.config.settings import ApiScope
from service.domain.claims import OrderKey
from service.gateway.errors import MessageInvalid
from service.ledger.claims import MOST_UNCOUNTED, Resolution
from service.ledger.errors import AnnouncementDiffers, OrderUnknown, UnknownMerchant
from service.ledger.inquiries import InquiryReason
from service.ledger.orders import OrderFilter
from service.ledger.store import LedgerStore

_ORDER = "/v1/orders/{merchant}/{biz_order_no}"
_UNKNOWN = "The merchant is not configured, or nobody ever spoke of the order."

_log = structlog.get_logger(__name__)


class Orders:
    """What callers may do with orders. Safe to share between threads."""

    def __init__(self, *, store: LedgerStore, announcer: Announcer) -> None:
        self._store = store
        self._announcer = announcer

    def routes(self) -> Sequence[Route]:
        """The operations."""
        return (
            Route(
                method="POST",
                path="/v1/orders",
                name="announceOrders",
                scope=ApiScope.ANNOUNCE,
                summary="Announce orders before they are sent to the gateway",
                description=(
                    "An announced order is asked for where no callback comes, and its amount goes out with its events. "
                    f"Takes 1 to {MOST_ORDERS} orders. The whole request is checked first; then each order stands by "
                    "itself. Where some were announced before with other values, the answer is 409 and names them, and "
                    "all others are announced. Sending the same again is harmless, after any answer or none."
                ),
                view=self.announce,
                body=AnnouncementsSchema(),
                answers={200: AnnouncedOrdersSchema()},
                problems={
                    409: "Some were announced before with other values: `differing` says which and in what. The others "
                    "are announced."
                },
            ),
            Route(
                method="GET",
                path="/v1/orders",
                name="listOrders",
                scope=ApiScope.READ,
                summary="List orders, those that changed last first",
                view=self.list,
                query=OrderFilterSchema(),
                answers={200: OrderListSchema()},
            ),
            Route(
                method="GET",
                path=_ORDER,
                name="showOrder",
                scope=ApiScope.READ,
                summary="Show what happened around an order",
                description=(
                    "Every claim that counted, every answer and every person's word; of the other claims, which anyone "
                    f"can make, the newest {MOST_UNCOUNTED}."
                ),
                view=self.show,
                answers={200: HistorySchema()},
                problems={404: _UNKNOWN},
            ),
            Route(
                method="POST",
                path=f"{_ORDER}/inquiry",
                name="inquire",
                scope=ApiScope.INQUIRE,
                summary="Ask the gateway for the order now",
                description="As soon as the merchant's least interval and daily most allow; `due_at` says when.",
                view=self.inquire,
                answers={202: InquirySchema()},
                problems={404: _UNKNOWN, 409: "The merchant's gateway cannot be asked."},
            ),
            Route(
                method="POST",
                path=f"{_ORDER}/resolve",
                name="resolveOrder",
                scope=ApiScope.RESOLVE,
                summary="Decide an order's status, in a person's name",
                description=(
                    "Outranks the gateway; downstream is told. Kept for good with the name, the reason and the token "
                    "that it came in by. Each request is a word of its own."
                ),
                view=self.resolve,
                body=ResolutionSchema(),
                answers={200: ResolvedSchema()},
                problems={404: _UNKNOWN},
            ),
        )

    def announce(self, *, caller: str, body: dict[str, Sequence[OrderDraft]]) -> Reply:
        """Announce every order of the request that was not announced otherwise."""
        drafts = body["orders"]
        self._check(drafts)
        announced: list[AnnouncedOrder] = []
        differing: list[dict[str, Any]] = []
        for position, draft in enumerate(drafts):
            try:
                announced.append(self._announcer.announce(draft))
            except AnnouncementDiffers as error:
                differing.append(
                    {
                        "position": position,
                        "merchant": draft.merchant,
                        "biz_order_no": draft.biz_order_no,
                        "fields_": error.fields,
                    }
                )
        _log.info("orders_announced", caller=caller, announced=len(announced), differing=len(differing))
        if differing:
            raise Problem(
                status=409,
                kind="announced-differently",
                title="Announced before with other values.",
                detail=f"{len(announced)} of {len(drafts)} orders are announced. "
                "For another payment use a new biz_order_no.",
                members={"differing": differing},
            )
        return Reply(status=200, value={"orders": announced})

    def list(self, *, caller: str, query: tuple[OrderFilter, int]) -> Reply:  # noqa: ARG002 - every view's
        """A page of orders."""
        chosen, limit = query
        page = self._store.list_orders(chosen, limit=limit)
        after = write_cursor(page[-1]) if len(page) == limit else None
        return Reply(status=200, value={"orders": page, "next": after})

    def show(self, *, caller: str, merchant: str, biz_order_no: str) -> Reply:  # noqa: ARG002 - every view's
        """The order's history."""
        history = self._store.order_history(OrderKey(merchant, biz_order_no))
        if not history.known:
            raise unknown_order()
        return Reply(status=200, value=history)

    def inquire(self, *, caller: str, merchant: str, biz_order_no: str) -> Reply:
        """Open the order's inquiry."""
        order = OrderKey(merchant, biz_order_no)
        if not self._store.knows(order):
            raise unknown_order()
        if not self._store.inquire(order, InquiryReason.OPERATOR):
            raise Problem(
                status=409,
                kind="no-gateway",
                title="The merchant's gateway cannot be asked.",
                detail=f"There is no [merchants.{merchant}.gateway] in the settings of this service.",
            )
        _log.info("inquiry_requested", caller=caller, merchant=merchant, biz_order_no=biz_order_no)
        return Reply(status=202, value=self._store.load_inquiry(order))

    def resolve(self, *, caller: str, merchant: str, biz_order_no: str, body: dict[str, Any]) -> Reply:
        """Record an operator's word."""
        order = OrderKey(merchant, biz_order_no)
        resolution = Resolution(
            order=order,
            status=body["status"],
            stated_by=f"{body['name']} (API token {caller})",
            reason=body["reason"],
            pay_order_no=body["pay_order_no"],
            paid_at=body["paid_at"],
        )
        try:
            verdict = self._store.resolve(resolution)
        except OrderUnknown as error:
            raise unknown_order() from error
        _log.info(
            "order_resolved",
            caller=caller,
            merchant=merchant,
            biz_order_no=biz_order_no,
            status=resolution.status,
            verdict=verdict,
        )
        return Reply(status=200, value={"verdict": verdict, "order": self._store.load_order(order)})

    def _check(self, drafts: Sequence[OrderDraft]) -> None:
        faults: list[Fault] = []
        for position, draft in enumerate(drafts):
            try:
                self._announcer.check(draft)
            except UnknownMerchant:
                faults.append(Fault(f"orders.{position}.merchant", "is not configured in this service's settings"))
            except MessageInvalid as error:
                faults += invalid_message(error, below=f"orders.{position}.").errors
        if faults:
            raise invalid(faults)
