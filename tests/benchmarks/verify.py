"""What it costs to read a callback, and what it costs at most: `python -m tests.benchmarks.verify [EXAMPLES]`.

Processor time of one thread. The costliest body is searched for by hypothesis, which is told of the time that each body
took and looks for those that take longer.
"""

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlencode

from hypothesis import HealthCheck, Phase, given, settings, target

from service.config.settings import MerchantSettings
from service.domain.claims import Trust
from service.gateway.errors import CallbackRefused
from service.gateway.json_dialects import find_dialect
from service.gateway.order_claims import claim_from_callback
from service.gateway.signature import sign_callback, verify_callback
from tests.support.costly_bodies import COSTLY_CONTENT_TYPE, costly_bodies

_FIELDS = {
    "biz_order_no": "DK20190701000001",
    "channel_response": "交易成功",
    "order_type": "single_withhold",
    "pay_order_no": "P2019070112000000012345",
    "pay_status": "success",
    "pay_time": "2026-07-01 12:00:05",
    "pay_type": "baofoo_001",
}
_MERCHANT = MerchantSettings(slug="acme", pay_types=frozenset({"baofoo_001"}), amount_unit="yuan")
_REPEATS = 3000
_ROUNDS = 7


def main(examples: int) -> None:
    """Print a table."""
    signed = {**_FIELDS, "sign": sign_callback(_FIELDS, find_dialect("php"))}
    forged = {**_FIELDS, "sign": "a" * 32}
    usual, form = json.dumps(signed, separators=(",", ":")).encode(), urlencode(signed).encode()
    print(f"{'verify the usual body':<40}{_microseconds(lambda: verify_callback(usual, None)):>10.1f} µs")
    print(f"{'read its claim, too':<40}{_microseconds(lambda: _read_claim(usual)):>10.1f} µs")
    print(f"{'verify a form':<40}{_microseconds(lambda: verify_callback(form, None)):>10.1f} µs")
    for name, body in (("JSON", json.dumps(forged).encode()), ("form", urlencode(forged).encode())):
        print(f"{f'refuse a {name} whose sign is wrong':<40}{_refusal_ms(body) * 1000:>10.1f} µs")
    milliseconds, costliest = _find_costliest(examples)
    print(f"{f'refuse the costliest of {examples} bodies':<40}{milliseconds:>10.1f} ms")
    print(f"    {len(costliest)} bytes: {costliest[:60]!r}...")


def _microseconds(work: Callable[[], object]) -> float:
    return min(_seconds(work, _REPEATS) for _ in range(_ROUNDS)) * 1e6


def _seconds(work: Callable[[], object], repeats: int) -> float:
    begun = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - begun) / repeats


def _read_claim(body: bytes) -> None:
    claim_from_callback(
        verify_callback(body, None),
        merchant=_MERCHANT,
        trust=Trust.CAPABILITY,
        received_at=datetime.now(UTC),
        traceparent=None,
    )


def _refuse(body: bytes) -> None:
    try:
        verify_callback(body, COSTLY_CONTENT_TYPE)
    except CallbackRefused:
        return
    raise AssertionError("a body with a wrong sign was accepted")


def _refusal_ms(body: bytes) -> float:
    # The best of three: what else the machine does is not the body's.
    return min(_seconds(lambda: _refuse(body), 1) for _ in range(3)) * 1000


def _find_costliest(examples: int) -> tuple[float, bytes]:
    costliest = (0.0, b"")

    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.target],
        suppress_health_check=list(HealthCheck),
    )
    @given(body=costly_bodies())
    def search(body: bytes) -> None:
        nonlocal costliest
        milliseconds = _refusal_ms(body)
        target(milliseconds)
        costliest = max(costliest, (milliseconds, body))

    search()
    return costliest


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
