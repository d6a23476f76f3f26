"""Announcing: an order made known to the ledger, and the address on which its callback will come in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from marshmallow import ValidationError

from service.config.settings import MerchantSettings
from service.domain.order_numbers import MAX_ORDER_NO_CHARACTERS, is_order_no
from service.gateway.errors import MessageInvalid
from service.gateway.errors import Problem as GatewayProblem
from service.gateway.message_fields import Amount
from service.gateway.messages import AmountUnit
from service.gateway.notify_urls import NotifyUrls
from service.ledger.announcements import Announcement
from service.ledger.errors import UnknownMerchant
from service.ledger.orders import OrderRecord
from service.ledger.store import LedgerStore

_MOST_DUE_IN = timedelta(days=366)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderDraft:
    """An order as a caller announces it; its amount is in the merchant's unit."""

    merchant: str
    biz_order_no: str
    #: None where unknown.
    amount: str | None = None
    #: "" where unknown.
    pay_type: str = ""
    #: When to ask, aware; None for the merchant's default.
    answer_due_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnouncedOrder:
    """An order that is known now."""

    order: OrderRecord
    #: What to give the gateway. A secret of this order: whoever has it can claim anything about it.
    notify_url: str


class Announcer:
    """Announces orders. Safe to share between threads."""

    def __init__(
        self,
        *,
        store: LedgerStore,
        merchants: Mapping[str, MerchantSettings],
        notify_urls: NotifyUrls,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._clock = clock
        self._merchants = merchants
        self._notify_urls = notify_urls

    def check(self, draft: OrderDraft) -> None:
        """Raise UnknownMerchant or MessageInvalid for what cannot be announced. Does nothing else."""
        merchant = self._merchants.get(draft.merchant)
        if merchant is None:
            raise UnknownMerchant(draft.merchant)
        if problems := tuple(_find_problems(draft, merchant, now=self._clock())):
            raise MessageInvalid("announcement", problems)

    def announce(self, draft: OrderDraft) -> AnnouncedOrder:
        """Announce it; saying the same again is harmless and answers the same.

        Raises what `check` raises, AnnouncementDiffers where it was announced with other values, LedgerUnavailable.
        """
        self.check(draft)
        order = self._store.announce(
            Announcement(
                merchant=draft.merchant,
                biz_order_no=draft.biz_order_no,
                amount=draft.amount,
                amount_unit=None if draft.amount is None else self._merchants[draft.merchant].amount_unit,
                pay_type=draft.pay_type,
                answer_due_at=draft.answer_due_at,
            )
        )
        return AnnouncedOrder(order=order, notify_url=self.notify_url(draft))

    def notify_url(self, draft: OrderDraft) -> str:
        """The address of an order that `check` finds nothing wrong with."""
        return self._notify_urls.of_order(draft.merchant, draft.biz_order_no)


def _find_problems(draft: OrderDraft, merchant: MerchantSettings, *, now: datetime) -> list[GatewayProblem]:
    problems = []
    if not is_order_no(draft.biz_order_no):
        allowed = f"allowed are 1 to {MAX_ORDER_NO_CHARACTERS} printable characters"
        problems.append(GatewayProblem("biz_order_no", f"no order number; {allowed}"))
    if draft.amount is not None:
        try:
            Amount(AmountUnit(merchant.amount_unit)).deserialize(draft.amount)
        except ValidationError as error:
            problems += [GatewayProblem("amount", str(text)) for text in error.messages]
    if draft.pay_type and draft.pay_type not in merchant.pay_types:
        allowed = " or ".join(sorted(merchant.pay_types))
        problems.append(GatewayProblem("pay_type", f"not this merchant's; allowed is {allowed}"))
    if draft.answer_due_at is not None and abs(draft.answer_due_at - now) > _MOST_DUE_IN:
        # A mistyped year would be an order that nobody ever asks for.
        problems.append(GatewayProblem("answer_due_at", f"allowed is a time within {_MOST_DUE_IN.days} days of now"))
    return problems
