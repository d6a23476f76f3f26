"""Text that no database can store is refused in every place where a caller can send text, never with a 500."""

import base64
import json
from itertools import product
from typing import Any

from tests.support.api import ApiCaller, order_path

TIME = "2026-01-05T12:00:00+00:00"
CARD = {
    "merchant": "acme",
    "pay_type": "baofoo_001",
    "bank_card_number": "6222021234561234",
    "id_card_number": "110105194912310021",
    "mobile": "13812345678",
    "name": "张三",
}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/withholds": {**CARD, "biz_order_no": "DK2", "amount": "1.00", "protocol_no": "P", "answer_due_at": TIME},
    "/v1/cards": CARD,
    "/v1/cards/confirm": {**CARD, "verification_code": "123456", "unique_code": "U"},
    order_path("acme", "DK1", below="/resolve"): {
        "name": "Li",
        "reason": "seen",
        "sequence": 0,
        "status": "succeeded",
        "pay_order_no": "P",
        "paid_at": TIME,
    },
    order_path("acme", "DK1", below="/inquiry"): {"name": "Li", "reason": "overdue"},
    "/v1/dead-letters/requests": {"ids": ["m1"], "action": "drop", "name": "Li", "reason": "not ours"},
}
ANNOUNCED = {
    "merchant": "acme",
    "biz_order_no": "DK2",
    "amount": "1.00",
    "pay_type": "baofoo_001",
    "answer_due_at": TIME,
}


ODD = ("\0", "\ud800", "a\0b", "张\udfff")


def cursor(*place: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def test_a_cursor_with_it_is_refused(api: ApiCaller) -> None:
    place = [TIME, "acme", "DK1"]
    for odd, part in product(ODD, range(len(place))):
        for text in (odd, place[part] + odd):
            answer = api.get(f"/v1/orders?after={cursor(*place[:part], text, *place[part + 1 :])}")
            assert (answer.status, answer.value["type"]) == (422, "urn:payment-callbacks:problem:invalid"), (odd, part)


def test_a_body_with_it_is_refused_wherever_it_is(api: ApiCaller) -> None:
    api.announce({"merchant": "acme", "biz_order_no": "DK1"})
    for odd, path in product(ODD, BODIES):
        for name in (*BODIES[path], odd):
            answer = api.post(path, {**BODIES[path], name: odd})
            assert 400 <= answer.status < 500, (path, name, odd)
            assert answer.value["status"] == answer.status, (path, name, odd)
    assert api.get(order_path("acme", "DK1")).value["claims"] == []


def test_an_announcement_with_it_is_refused_wherever_it_is(api: ApiCaller) -> None:
    for odd in ODD:
        for name in (*ANNOUNCED, odd):
            assert api.post("/v1/orders", {"orders": [{**ANNOUNCED, name: odd}]}).status == 422, (name, odd)
    assert api.get("/v1/orders").value["orders"] == []


def test_an_address_with_it_is_refused_or_matches_nothing(api: ApiCaller) -> None:
    for encoded in ("%00", "a%00b", "%ED%A0%80", "%FF", "%C0%80"):
        for name in (
            "merchant",
            "status",
            "after",
            "limit",
            "updated_before",
            "conflicted",
            "amount",
            "number",
            encoded,
        ):
            answer = api.get(f"/v1/orders?{name}={encoded}")
            # What is no UTF-8 is read with replacement characters: a merchant of whom there is nothing.
            assert answer.status == 422 or (answer.status, answer.value["orders"]) == (200, []), (name, encoded)
        for merchant, number in ((encoded, "DK1"), ("acme", encoded)):
            assert api.get(f"/v1/orders/{merchant}/{number}").status == 404, encoded
            asked = api.post(f"/v1/orders/{merchant}/{number}/inquiry", {"name": "Li", "reason": "overdue"})
            assert asked.status == 404, encoded
        assert api.get(f"/v1/dead-letters/{encoded}").status == 404, encoded
