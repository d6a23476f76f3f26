"""Cards bound in two steps: a code is sent, then confirmed."""

import secrets
import threading
from dataclasses import dataclass

from service.sandbox.orders import BookFull


class BindingRefused(Exception):
    """A confirmation that fits no binding; the message is the gateway's own words for the caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """One card of one person, for one `pay_type`."""

    ua: str
    bank_card_number: str
    pay_type: str
    unique_code: str
    verification_code: str
    #: What a confirmed binding is charged by; it is drawn at once and handed out when confirmed.
    protocol_no: str


class Bindings:
    """All bindings, in memory. Safe to use from many threads."""

    def __init__(self, *, verification_code: str, max_bindings: int) -> None:
        self._verification_code = verification_code
        self._max_bindings = max_bindings
        self._offered: dict[str, Binding] = {}
        self._confirmed: dict[str, Binding] = {}
        self._lock = threading.Lock()

    def offer(self, *, ua: str, bank_card_number: str, pay_type: str) -> Binding:
        """Begin a binding; its code goes to the card holder (here: to /admin/bindings). Raises BookFull."""
        binding = Binding(
            ua=ua,
            bank_card_number=bank_card_number,
            pay_type=pay_type,
            unique_code=secrets.token_hex(16),
            verification_code=self._verification_code or f"{secrets.randbelow(10**6):06d}",
            protocol_no=f"XY{secrets.token_hex(12)}",
        )
        with self._lock:
            if len(self._offered) >= self._max_bindings:
                raise BookFull
            self._offered[binding.unique_code] = binding
        return binding

    def confirm(
        self, *, ua: str, unique_code: str, verification_code: str, bank_card_number: str, pay_type: str
    ) -> Binding:
        """Finish a binding; doing it twice gives the same one. Raises BindingRefused."""
        with self._lock:
            binding = self._offered.get(unique_code)
            if binding is None or binding.ua != ua:
                raise BindingRefused("签约唯一码不存在")
            if binding.verification_code != verification_code:
                raise BindingRefused("验证码错误")
            if (binding.bank_card_number, binding.pay_type) != (bank_card_number, pay_type):
                raise BindingRefused("银行卡号或支付类型与预签约不一致")
            self._confirmed[binding.protocol_no] = binding
            return binding

    def find(self, ua: str, protocol_no: str) -> Binding | None:
        """The confirmed binding of that number, where this `ua` has one."""
        with self._lock:
            binding = self._confirmed.get(protocol_no)
        return binding if binding and binding.ua == ua else None

    def offered(self) -> list[Binding]:
        """Every binding begun, oldest first."""
        with self._lock:
            return list(self._offered.values())
