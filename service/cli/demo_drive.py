"""Sends the demo's withholds: announce, mint the address, send; never twice."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from service.cli.demo_stage import MERCHANT, PAY_TYPE
from service.gateway.capability import CapabilityTokens
from service.gateway.client import GatewayClient
from service.gateway.errors import OutcomeUnknown
from service.gateway.messages import SingleWithholdArgs
from service.ledger.announcements import Announcement
from service.ledger.errors import LedgerUnavailable
from service.ledger.store import LedgerStore

#: A made-up person: the ID number is the standard's own example, the card number is nobody's.
_NAME, _ID_CARD, _MOBILE, _BANK_CARD = "张三", "11010519491231002X", "13800138000", "6222020000000000000"
_SENDERS = 8
_ANNOUNCE_ATTEMPTS = 20
_ANNOUNCE_PAUSE_SECONDS = 0.25


class Driver:
    """One merchant's own system, as small as it can be."""

    def __init__(
        self, *, store: LedgerStore, client: GatewayClient, tokens: CapabilityTokens, receiver_url: str
    ) -> None:
        self._store = store
        self._client = client
        self._tokens = tokens
        self._receiver_url = receiver_url

    def send(self, order_nos: Sequence[str], *, on_sent: Callable[[], None]) -> Counter[str]:
        """Withhold every order; how many were `accepted`, and of how many the outcome is `unknown`.

        Raises NotSent where the gateway cannot be reached, LedgerUnavailable where an order cannot be announced.
        """
        outcomes: Counter[str] = Counter()
        with ThreadPoolExecutor(_SENDERS, thread_name_prefix="driver") as pool:
            for outcome in pool.map(self._send_one, order_nos, _amounts(len(order_nos))):
                outcomes[outcome] += 1
                on_sent()
        return outcomes

    def _send_one(self, biz_order_no: str, amount: str) -> str:
        # Known to the ledger before the gateway hears of it: a callback may be faster than the answer, and an order
        # whose answer is lost is known all the same.
        self._announce(
            Announcement(
                merchant=MERCHANT, biz_order_no=biz_order_no, amount=amount, amount_unit="yuan", pay_type=PAY_TYPE
            )
        )
        args = SingleWithholdArgs(
            biz_order_no=biz_order_no,
            amount=amount,
            name=_NAME,
            id_card_number=_ID_CARD,
            mobile=_MOBILE,
            bank_card_number=_BANK_CARD,
            pay_type=PAY_TYPE,
            notify_url=f"{self._receiver_url}/notify/{MERCHANT}/{self._tokens.mint(biz_order_no)}",
        )
        try:
            self._client.withhold(args)
        except OutcomeUnknown:
            return "unknown"
        return "accepted"

    def _announce(self, announcement: Announcement) -> None:
        # Several processes write one SQLite file here, and it may be busy for a moment.
        for attempt in range(_ANNOUNCE_ATTEMPTS):
            try:
                self._store.announce(announcement)
            except LedgerUnavailable:
                if attempt == _ANNOUNCE_ATTEMPTS - 1:
                    raise
                time.sleep(_ANNOUNCE_PAUSE_SECONDS)
            else:
                return


def _amounts(count: int) -> list[str]:
    return [f"{10 + number % 90}.00" for number in range(count)]
