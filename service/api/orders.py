"""`/v1/orders`: announce, list, show, inquire, resolve."""

from collections.abc import Mapping, Sequence
from typing import Any

from flask import g

from service.api.blueprint import ApiBlueprint
from service.api.problems import Problem, invalid
from service.api.request_schemas import (
    AnnouncementsSchema,
    AuthorSchema,
    ConfirmationSchema,
    InquiryRequestSchema,
    OrderFilterSchema,
    ResolutionSchema,
)
from service.api.response_schemas import (
    AnnouncedOrdersSchema,
    HistorySchema,
    InquirySchema,
    OrderListSchema,
    ProposalSchema,
    ResolvedSchema,
    describe_resolved,
)
from service.charging.announce import AnnouncedOrder, Announcer, OrderDraft
from service.config.settings import ApiScope
from service.domain.claims import OrderKey
from service.gateway.errors import FieldProblem, MessageInvalid
from service.ledger.claims import Resolution
from service.ledger.cursors import next_cursor
from service.ledger.errors import AnnouncementDiffers, OrderUnknown, UnknownMerchant
from service.ledger.histories import OrderHistory
from service.ledger.inquiries import InquiryReason, InquiryRecord
from service.ledger.orders import OrderFilter
from service.ledger.proposals import ProposalRecord
from service.ledger.store import LedgerStore
from service.runtime.logs import Logger

_ORDER = "/<merchant:merchant>/<order_number:biz_order_no>"
_PROPOSAL = f"{_ORDER}/proposals/<row_number:proposal>"
_NO_PROPOSAL = "The merchant is not configured, or the order has no proposal with this id."
_UNKNOWN = "The merchant is not configured, or the order is unknown."

_log = Logger(__name__)


def make_orders(*, store: LedgerStore, announcer: Announcer) -> ApiBlueprint:
    """The resource. Its views may run on many threads at once."""
    blueprint = ApiBlueprint(
        "orders", __name__, url_prefix="/v1/orders", description="Orders, and what is known of them."
    )

    @blueprint.route("", methods=["POST"])
    @blueprint.operation(
        "announceOrders",
        scope=ApiScope.ANNOUNCE,
        problems={
            409: "Some were announced before with other values: `differing` names them and what differs. The others "
            "are announced."
        },
    )
    @blueprint.arguments(AnnouncementsSchema)
    @blueprint.response(200, AnnouncedOrdersSchema)
    def announce(body: dict[str, Sequence[OrderDraft]]) -> dict[str, Any]:
        """Announce orders before they are sent to the gateway

        The gateway is asked about an announced order if no callback comes, and the order's events carry its amount. The
        whole request is checked first; then each order stands by itself. Where some were announced before with other
        values, the response is 409 and names them, and all others are announced. Sending the same request again is
        harmless.
        """
        drafts = body["orders"]
        _check(announcer, drafts)
        announced: list[AnnouncedOrder] = []
        differing: list[dict[str, Any]] = []
        for position, draft in enumerate(drafts):
            try:
                announced.append(announcer.announce(draft))
            except AnnouncementDiffers as error:
                order = {"merchant": draft.merchant, "biz_order_no": draft.biz_order_no}
                differing.append({"position": position, **order, "fields_": error.fields})
        _log.info("orders_announced", caller=g.caller.name, announced=len(announced), differing=len(differing))
        if differing:
            raise Problem(
                status=409,
                kind="announced-differently",
                title="Announced before with other values.",
                detail=f"{len(announced)} of {len(drafts)} orders are announced. "
                "For another payment use a new biz_order_no.",
                members={"differing": differing},
            )
        return {"orders": announced}

    @blueprint.route("")
    @blueprint.operation("listOrders", scope=ApiScope.READ)
    @blueprint.arguments(OrderFilterSchema, location="query")
    @blueprint.response(200, OrderListSchema)
    def list_orders(query: tuple[str | None, OrderFilter, int]) -> dict[str, Any]:
        """List orders, the most recently changed first

        Those of one `number` are a handful at most, and have no further page.
        """
        number, chosen, limit = query
        if number is not None:
            return {"orders": store.find_orders(number, limit=limit), "next": None}
        page = store.list_orders(chosen, limit=limit)
        return {"orders": page, "next": next_cursor(page, limit=limit)}

    @blueprint.route(_ORDER)
    @blueprint.operation("showOrder", scope=ApiScope.READ, problems={404: _UNKNOWN})
    @blueprint.response(200, HistorySchema)
    def show(merchant: str, biz_order_no: str) -> OrderHistory:
        """Show the history of an order

        Contains every claim that counted, every query of the gateway and every person's decision. Of the other claims,
        which anyone can make, it contains the newest.
        """
        history = store.order_history(OrderKey(merchant, biz_order_no))
        if not history.known:
            raise OrderUnknown(biz_order_no)
        return history

    @blueprint.route(f"{_ORDER}/inquiry", methods=["POST"])
    @blueprint.operation(
        "inquire", scope=ApiScope.INQUIRE, problems={404: _UNKNOWN, 409: "The merchant's gateway cannot be asked."}
    )
    @blueprint.arguments(InquiryRequestSchema)
    @blueprint.response(202, InquirySchema)
    def inquire(body: dict[str, str], merchant: str, biz_order_no: str) -> InquiryRecord | None:
        """Ask the gateway about the order now

        The gateway is asked as soon as the merchant's limits allow; `due_at` says when. The audit keeps who asked, and
        why.
        """
        order = OrderKey(merchant, biz_order_no)
        if not store.knows(order):
            raise OrderUnknown(biz_order_no)
        if not store.inquire(order, InquiryReason.OPERATOR, author=g.caller.author(body)):
            raise Problem(
                status=409,
                kind="no-gateway",
                title="The merchant's gateway cannot be asked.",
                detail=f"There is no [merchants.{merchant}.gateway] in the settings of this service.",
            )
        _log.info("inquiry_requested", caller=g.caller.name, merchant=merchant, biz_order_no=biz_order_no)
        return store.load_inquiry(order)

    @blueprint.route(f"{_ORDER}/resolve", methods=["POST"])
    @blueprint.operation(
        "resolveOrder",
        scope=ApiScope.RESOLVE,
        problems={
            404: _UNKNOWN,
            409: "The order has changed since the person looked at it, or a proposal waits for a second person; "
            "nothing was done.",
        },
    )
    @blueprint.arguments(ResolutionSchema)
    @blueprint.alt_response(
        202, schema=ResolvedSchema, description="A proposal: nothing changes until another person confirms it."
    )
    @blueprint.response(200, ResolvedSchema)
    def resolve(body: dict[str, Any], merchant: str, biz_order_no: str) -> tuple[Mapping[str, Any], int]:
        """Decide an order's status, in a person's name

        The decision overrides the gateway, and events are delivered as for any other change. It ends a conflict: the
        order has the values that the decision states and, of those that it does not state, the ones that stand. It is
        kept for good, with the name, the reason and the token's name. It counts only if the order's `sequence` is still
        the one that the person saw.

        Where the merchant's settings require a second person for it, the response is 202 with a proposal. It lapses
        when the order changes.
        """
        name = body.pop("name")
        body["amount"] = announcer.read_payment(merchant, amount=body["amount"], pay_type=body["pay_type"])
        resolution = Resolution(
            order=OrderKey(merchant, biz_order_no),
            stated_by=g.caller.speaking_for(name),
            identity=g.caller.person,
            **body,
        )
        resolved = store.resolve(resolution)
        log = _log.bind(caller=g.caller.name, merchant=merchant, biz_order_no=biz_order_no, status=resolution.status)
        if isinstance(resolved, ProposalRecord):
            log.info("resolution_proposed", proposal=resolved.id)
            status = 202
        else:
            log.info("order_resolved", verdict=resolved)
            status = 200
        return describe_resolved(resolved, store.load_order(resolution.order)), status

    @blueprint.route(f"{_PROPOSAL}/confirm", methods=["POST"])
    @blueprint.operation(
        "confirmProposal",
        scope=ApiScope.RESOLVE,
        problems={404: _NO_PROPOSAL, 409: "The caller is the proposal's author, or it is not open; nothing was done."},
    )
    @blueprint.arguments(ConfirmationSchema)
    @blueprint.response(200, ResolvedSchema)
    def confirm(body: dict[str, str], merchant: str, biz_order_no: str, proposal: int) -> Mapping[str, Any]:
        """Confirm another person's decision on an order

        Then the decision counts. It is kept as stated by both. The `person` of the two tokens has to differ. It is
        refused if the order has changed since it was proposed.
        """
        order = OrderKey(merchant, biz_order_no)
        verdict = store.confirm(order, proposal, author=g.caller.author(body))
        _log.info(
            "proposal_confirmed",
            caller=g.caller.name,
            merchant=merchant,
            biz_order_no=biz_order_no,
            proposal=proposal,
            verdict=verdict,
        )
        return describe_resolved(verdict, store.load_order(order))

    @blueprint.route(f"{_PROPOSAL}/withdraw", methods=["POST"])
    @blueprint.operation(
        "withdrawProposal",
        scope=ApiScope.RESOLVE,
        problems={404: _NO_PROPOSAL, 409: "The proposal is not open; nothing was done."},
    )
    @blueprint.arguments(AuthorSchema)
    @blueprint.response(200, ProposalSchema)
    def withdraw(body: dict[str, str], merchant: str, biz_order_no: str, proposal: int) -> ProposalRecord:
        """Withdraw one's own or another person's proposal, so that nobody confirms it"""
        order = OrderKey(merchant, biz_order_no)
        withdrawn = store.withdraw(order, proposal, author=g.caller.author(body))
        _log.info(
            "proposal_withdrawn",
            caller=g.caller.name,
            merchant=merchant,
            biz_order_no=biz_order_no,
            proposal=proposal,
        )
        return withdrawn

    return blueprint


def _check(announcer: Announcer, drafts: Sequence[OrderDraft]) -> None:
    errors: list[FieldProblem] = []
    for position, draft in enumerate(drafts):
        try:
            announcer.check(draft)
        except UnknownMerchant:
            errors.append(FieldProblem(f"orders.{position}.merchant", "is not configured in this service's settings"))
        except MessageInvalid as error:
            errors += [FieldProblem(f"orders.{position}.{problem.field}", problem.text) for problem in error.problems]
    if errors:
        raise invalid(errors)
