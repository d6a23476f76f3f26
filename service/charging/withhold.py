"""Withholding: announce an order, send it to the gateway once, and record the outcome."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from service.charging.announce import AnnouncedOrder, Announcer, OrderDraft
from service.charging.bulkhead import Bulkhead
from service.config.settings import MerchantSettings
from service.domain.claims import OrderKey
from service.gateway.arguments import check_arguments
from service.gateway.errors import CallFailed, OutcomeUnknown, WithholdRefused
from service.gateway.requests import SINGLE_WITHHOLD_ARGS, AmountUnit, SingleWithholdArgs
from service.ledger.inquiries import InquiryReason
from service.ledger.store import LedgerStore
from service.ledger.withholds import SentBefore, WithholdOutcome, WithholdRecord, Withholds
from service.runtime.logs import Logger

_log = Logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Payer:
    """The person whose card is charged. Sent to the gateway and stored nowhere."""

    name: str = field(repr=False)
    id_card_number: str = field(repr=False)
    mobile: str = field(repr=False)
    bank_card_number: str | None = field(default=None, repr=False)
    protocol_no: str | None = field(default=None, repr=False)

    def redact(self, text: str) -> str:
        """`text` without the payer's data: gateways often quote what they were sent."""
        for value in filter(None, (self.name, self.id_card_number, self.mobile, self.bank_card_number)):
            text = text.replace(value, "…")
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class SentOrder:
    """An order that was sent, now or earlier."""

    announced: AnnouncedOrder
    withhold: WithholdRecord


class Withholder:
    """Sends withholds. Safe to share between threads."""

    def __init__(
        self,
        *,
        announcer: Announcer,
        store: LedgerStore,
        withholds: Withholds,
        merchants: Mapping[str, MerchantSettings],
        gateways: Bulkhead,
    ) -> None:
        self._announcer = announcer
        self._store = store
        self._withholds = withholds
        self._merchants = merchants
        self._gateways = gateways

    def withhold(self, draft: OrderDraft, payer: Payer, *, sent_by: str) -> SentOrder:
        """Announce and send the order. Returns the outcome: accepted, or unknown, and then an inquiry is opened.

        A second call for the same order sends nothing and returns the outcome of the first, unless that one was surely
        not done. Raises NoGateway, MessageInvalid, UnknownMerchant, AnnouncementDiffers, StatusKnown, and CallFailed
        if the withhold was surely not done. LedgerUnavailable leaves open whether it was sent; calling again is safe.
        """
        self._announcer.check(draft)
        self._gateways.require_gateway(draft.merchant)
        args = self._write_args(draft, payer, notify_url=self._announcer.notify_url(draft))
        # Committed before anything is sent: if this process dies in between, the inquirer still queries the order.
        announced = self._announcer.announce(draft)
        order = announced.order.key
        try:
            self._withholds.begin(order, sent_by=sent_by)
        except SentBefore as before:
            if before.record.outcome is WithholdOutcome.SENDING:
                # The process that sent it may have died before it had a response.
                self._store.inquire(order, InquiryReason.UNKNOWN_OUTCOME)
            return SentOrder(announced=announced, withhold=before.record)
        try:
            with self._gateways.enter(draft.merchant) as gateway:
                accepted = gateway.withhold(args)
        except OutcomeUnknown as error:
            self._store.inquire(order, InquiryReason.UNKNOWN_OUTCOME)
            self._settle(order, WithholdOutcome.UNKNOWN, payer, error)
        except CallFailed as error:
            self._settle(order, WithholdOutcome.NOT_DONE, payer, error)
            raise
        else:
            self._withholds.settle(order, WithholdOutcome.ACCEPTED, request_id=accepted.request_id)
        return self._sent(announced)

    def _write_args(self, draft: OrderDraft, payer: Payer, *, notify_url: str) -> SingleWithholdArgs:
        """Write and check the arguments. Raises MessageInvalid."""
        merchant = self._merchants[draft.merchant]
        args = SingleWithholdArgs(
            biz_order_no=draft.biz_order_no,
            amount=draft.amount or "",
            pay_type=draft.pay_type,
            notify_url=notify_url,
            **asdict(payer),
        )
        SINGLE_WITHHOLD_ARGS[AmountUnit(merchant.amount_unit)].write(args)
        check_arguments("single-withhold", args, pay_types=merchant.pay_types)
        return args

    def _settle(self, order: OrderKey, outcome: WithholdOutcome, payer: Payer, error: CallFailed) -> None:
        self._withholds.settle(
            order,
            outcome,
            detail=payer.redact(str(error)),
            request_id=error.request_id,
            refusal_message=error.message if isinstance(error, WithholdRefused) else None,
        )

    def _sent(self, announced: AnnouncedOrder) -> SentOrder:
        order = announced.order.key
        record = self._withholds.load(order)
        assert record is not None  # noqa: S101 - it was begun above, and no row is ever deleted
        if record.ended_at is not None:
            _log.warning("order_ended_by_rule", merchant=order.merchant, biz_order_no=order.biz_order_no)
            announced = replace(announced, order=self._store.load_order(order) or announced.order)
        return SentOrder(announced=announced, withhold=record)
