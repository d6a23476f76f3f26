"""`/v1/withholds`: charge a card, so that a caller needs to know nothing of the gateway's ciphers."""

from collections.abc import Sequence

import structlog

from service.api.answer_schemas import SentSchema
from service.api.problems import Problem
from service.api.request_schemas import WithholdSchema
from service.api.routes import Reply, Route
from service.charging.announce import OrderDraft
from service.charging.withhold import Payer, Withholder
from service.config.settings import ApiScope
from service.ledger.errors import AnnouncementDiffers
from service.ledger.withholds import StatusKnown

_log = structlog.get_logger(__name__)


class WithholdRoutes:
    """Sends withholds for callers. Safe to share between threads."""

    def __init__(self, *, withholder: Withholder) -> None:
        self._withholder = withholder

    def routes(self) -> Sequence[Route]:
        """The one operation."""
        return (
            Route(
                method="POST",
                path="/v1/withholds",
                name="withhold",
                scope=ApiScope.WITHHOLD,
                summary="Announce an order and charge a card for it",
                description=(
                    "The order is announced, and committed, before anything is sent. It is sent once: the same request "
                    "again sends nothing and answers what is known of the first time, unless that was surely not done. "
                    "`accepted` is not paid: the order's events tell of that. `unknown` is not failed: the gateway is "
                    "asked. Personal data is passed on and neither stored nor logged."
                ),
                view=self.withhold,
                body=WithholdSchema(),
                answers={202: SentSchema()},
                problems={
                    404: "The merchant is not configured.",
                    409: "Announced before with other values; or it has a status already, though it was not sent from "
                    "here; or the merchant has no gateway.",
                    502: "Surely not done: the gateway cannot be reached. The same request may be sent again.",
                },
            ),
        )

    def withhold(self, *, caller: str, body: tuple[OrderDraft, Payer]) -> Reply:
        """Send it, or say what became of it."""
        draft, payer = body
        try:
            sent = self._withholder.withhold(draft, payer, sent_by=f"API token {caller}")
        except AnnouncementDiffers as error:
            raise Problem(
                status=409,
                kind="announced-differently",
                title="Announced before with other values.",
                detail=f"Different is: {', '.join(error.fields)}. Nothing was sent. "
                "For another payment use a new biz_order_no.",
            ) from error
        except StatusKnown as error:
            raise Problem(
                status=409,
                kind="spoken-of-before",
                title="The order has a status already, though it was not sent from here.",
                detail="Sending it might charge it twice, so nothing was sent. For another payment use a new "
                "biz_order_no.",
            ) from error
        _log.info(
            "withhold_answered",
            caller=caller,
            merchant=draft.merchant,
            biz_order_no=draft.biz_order_no,
            outcome=sent.withhold.outcome,
        )
        return Reply(status=202, value=sent)
