"""Announcing an order: recording it in the ledger before it is sent, and making the notify_url for its callback."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from marshmallow import ValidationError

from service.config.settings import MerchantSettings
from service.domain.money import Money
from service.domain.order_numbers import MAX_ORDER_NO_CHARACTERS, is_order_no
from service.gateway.errors import FieldProblem, MessageInvalid
from service.gateway.notify_addresses import NotifyTokens
from service.gateway.requests import Amount, AmountUnit
from service.ledger.announcements import Announcement
from service.ledger.errors import UnknownMerchant
from service.ledger.orders import OrderRecord
from service.ledger.store import LedgerStore
from service.runtime.logs import Logger

_MAX_DUE_IN = timedelta(days=366)

_log = Logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderDraft:
    """An order as a caller announces it; its amount is in the merchant's unit."""

    merchant: str
    biz_order_no: str
    #: None where unknown.
    amount: str | None = None
    #: "" where unknown.
    pay_type: str = ""
    #: When to query the gateway if no callback has come, aware; None for the merchant's default.
    answer_due_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnouncedOrder:
    """An order that the ledger knows, with its notify_url."""

    order: OrderRecord
    #: The notify_url for the gateway. Keep it secret: whoever has it can send any callback for this order.
    notify_url: str


class Announcer:
    """Announces orders. Safe to share between threads."""

    def __init__(
        self,
        *,
        store: LedgerStore,
        merchants: Mapping[str, MerchantSettings],
        public_url: str,
        tokens: Mapping[str, NotifyTokens],
        clock: Callable[[], datetime],
    ) -> None:
        """`public_url` is the receiver's, without a path. A merchant without tokens has one address for all orders."""
        self._store = store
        self._clock = clock
        self._merchants = merchants
        self._public_url = public_url
        self._tokens = tokens

    def check(self, draft: OrderDraft) -> None:
        """Check a draft without announcing it. Raises UnknownMerchant and MessageInvalid."""
        if problems := tuple(_find_problems(draft, self._merchant(draft.merchant), now=self._clock())):
            raise MessageInvalid("announcement", problems)

    def read_payment(self, merchant: str, *, amount: str | None, pay_type: str) -> Money | None:
        """Check what a person states of a payment; its amount in the merchant's unit. None and "" are not stated.

        Raises UnknownMerchant and MessageInvalid.
        """
        settings = self._merchant(merchant)
        if problems := tuple(_find_payment_problems(amount, pay_type, settings)):
            raise MessageInvalid("payment", problems)
        return None if amount is None else Money(amount, settings.amount_unit)

    def announce(self, draft: OrderDraft) -> AnnouncedOrder:
        """Announce an order. Announcing the same draft again changes nothing and returns the same.

        Raises what `check` raises, AnnouncementDiffers if it was announced with other values, and LedgerUnavailable.
        """
        self.check(draft)
        if self._merchants[draft.merchant].may_be_card_number(draft.biz_order_no):
            _log.warning(
                "order_number_may_be_card_number",
                merchant=draft.merchant,
                biz_order_no=draft.biz_order_no,
                remedy=f"set merchants.{draft.merchant}.order_number_pattern if it is none; until then logs mask it",
            )
        unit = None if draft.amount is None else self._merchants[draft.merchant].amount_unit
        order = self._store.announce(Announcement(amount_unit=unit, **asdict(draft)))
        return AnnouncedOrder(order=order, notify_url=self.notify_url(draft))

    def notify_url(self, draft: OrderDraft) -> str:
        """The order's own address, or the merchant's common one; the same every time. The draft has passed `check`."""
        common = f"{self._public_url}/notify/{draft.merchant}"
        tokens = self._tokens.get(draft.merchant)
        return common if tokens is None else f"{common}/{tokens.mint(draft.biz_order_no)}"

    def _merchant(self, name: str) -> MerchantSettings:
        try:
            return self._merchants[name]
        except KeyError:
            raise UnknownMerchant(name) from None


def _find_payment_problems(amount: str | None, pay_type: str, merchant: MerchantSettings) -> list[FieldProblem]:
    problems = []
    if amount is not None:
        try:
            Amount(AmountUnit(merchant.amount_unit)).deserialize(amount)
        except ValidationError as error:
            problems += [FieldProblem("amount", str(text)) for text in error.messages]
    if pay_type and pay_type not in merchant.pay_types:
        allowed = " or ".join(sorted(merchant.pay_types))
        problems.append(FieldProblem("pay_type", f"not this merchant's; expected {allowed}"))
    return problems


def _find_problems(draft: OrderDraft, merchant: MerchantSettings, *, now: datetime) -> list[FieldProblem]:
    problems = []
    if not is_order_no(draft.biz_order_no):
        allowed = f"allowed are 1 to {MAX_ORDER_NO_CHARACTERS} printable characters"
        problems.append(FieldProblem("biz_order_no", f"no order number; {allowed}"))
    problems += _find_payment_problems(draft.amount, draft.pay_type, merchant)
    if draft.answer_due_at is not None and abs(draft.answer_due_at - now) > _MAX_DUE_IN:
        # With a mistyped year, the order would never be queried.
        problems.append(FieldProblem("answer_due_at", f"expected a time within {_MAX_DUE_IN.days} days of now"))
    return problems
