"""Sends the demo's withholds, as a system that charges its customers would."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from service.charging.announce import OrderDraft
from service.charging.withhold import Payer, Withholder
from service.demo.stage import MERCHANT, PAY_TYPE
from service.ledger.errors import LedgerUnavailable
from service.ledger.withholds import WithholdOutcome

#: A made-up person: the ID number is the standard's own example, the card number is nobody's.
_PAYER = Payer(
    name="张三", id_card_number="11010519491231002X", mobile="13800138000", bank_card_number="6222020000000000000"
)
#: How many withholds are under way at once.
SENDERS = 4
_ATTEMPTS = 20
_PAUSE_SECONDS = 0.25


class Driver:
    """One merchant's own system, as small as it can be."""

    def __init__(self, *, withholder: Withholder) -> None:
        self._withholder = withholder

    def send(self, order_nos: Sequence[str], *, on_sent: Callable[[], None]) -> Counter[WithholdOutcome]:
        """Withhold every order once; how many were accepted, and of how many the outcome is unknown.

        Raises CallFailed where the gateway cannot be reached or refuses, LedgerUnavailable where the ledger stays away.
        """
        outcomes: Counter[WithholdOutcome] = Counter()
        with ThreadPoolExecutor(SENDERS, thread_name_prefix="driver") as pool:
            for outcome in pool.map(self._send_one, order_nos, _amounts(len(order_nos))):
                outcomes[outcome] += 1
                on_sent()
        return outcomes

    def _send_one(self, biz_order_no: str, amount: str) -> WithholdOutcome:
        draft = OrderDraft(merchant=MERCHANT, biz_order_no=biz_order_no, amount=amount, pay_type=PAY_TYPE)
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._withhold(draft)
            except LedgerUnavailable:
                # Several processes write one SQLite file here, and it may be busy for a moment.
                time.sleep(_PAUSE_SECONDS)
        return self._withhold(draft)

    def _withhold(self, draft: OrderDraft) -> WithholdOutcome:
        return self._withholder.withhold(draft, _PAYER, sent_by="demo").withhold.outcome


def _amounts(count: int) -> list[str]:
    return [f"{10 + number % 90}.00" for number in range(count)]
