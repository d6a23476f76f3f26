"""Orders announced over HTTP."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.support.api import ApiCaller, order_path

ORDER = {"merchant": "acme", "biz_order_no": "DK/1 单.", "amount": "10.50", "pay_type": "baofoo_001"}


def test_an_announced_order_gets_an_unguessable_notify_url(api: ApiCaller) -> None:
    answer = api.announce(ORDER)
    (announced,) = answer.value["orders"]
    assert answer.status == 200
    assert announced["notify_url"].startswith("http://127.0.0.1:8080/notify/acme/k1.")
    assert (announced["order"]["status"], announced["order"]["amount_unit"]) == ("initial", "yuan")


def test_a_merchant_without_token_keys_has_one_notify_url_for_all_orders(api: ApiCaller) -> None:
    (announced,) = api.announce({"merchant": "mute", "biz_order_no": "DK1"}).value["orders"]
    assert announced["notify_url"].endswith("/notify/mute")


def test_announcing_the_same_order_again_returns_the_same(api: ApiCaller) -> None:
    assert api.announce(ORDER) == api.announce(ORDER)


def test_announcing_other_values_names_what_differs_and_announces_the_other_orders(api: ApiCaller) -> None:
    api.announce(ORDER)
    answer = api.announce({**ORDER, "amount": "10.51"}, {**ORDER, "biz_order_no": "DK2"})
    assert answer.status == 409
    assert answer.value["differing"] == [
        {"position": 0, "merchant": "acme", "biz_order_no": "DK/1 单.", "fields": ["amount"]}
    ]
    assert api.get(order_path("acme", "DK2")).status == 200


def test_one_invalid_order_prevents_the_whole_request(api: ApiCaller) -> None:
    invalid: Sequence[tuple[dict[str, object], str]] = (
        ({"amount": "10.505"}, "orders.1.amount"),
        ({"amount": "1e3"}, "orders.1.amount"),
        ({"amount": 10.5}, "orders.1.amount"),
        ({"pay_type": "other"}, "orders.1.pay_type"),
        ({"merchant": "nobody"}, "orders.1.merchant"),
        ({"biz_order_no": "x" * 129}, "orders.1.biz_order_no"),
        ({"answer_due_at": "2026-01-05T12:00:00"}, "orders.1.answer_due_at"),
        ({"answer_due_at": "9999-12-31T23:59:59-08:00"}, "orders.1.answer_due_at"),
        ({"answer_due_at": "2062-01-05T12:00:00+08:00"}, "orders.1.answer_due_at"),
        ({"amont": "1.00"}, "orders.1.amont"),
    )
    for changes, where in invalid:
        answer = api.announce(ORDER, {**ORDER, "biz_order_no": "DK2", **changes})
        assert answer.status == 422, changes
        assert [error["where"] for error in answer.value["errors"]] == [where], changes
        assert api.get(order_path("acme", "DK/1 单.")).status == 404


def test_concurrent_announcements_of_one_order_succeed_only_with_equal_values(api: ApiCaller) -> None:
    amounts = [f"{number % 2 + 1}.00" for number in range(16)]
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda amount: api.announce({**ORDER, "amount": amount}), amounts))
    done = [amount for amount, answer in zip(amounts, answers, strict=True) if answer.status == 200]
    assert len(done) == 8
    assert len(set(done)) == 1
    assert {answer.status for answer in answers} == {200, 409}


def test_the_pages_of_a_list_contain_every_order_once(api: ApiCaller) -> None:
    api.announce(*({"merchant": "acme", "biz_order_no": f"DK{number}"} for number in range(25)))
    found, after = [], ""
    while after is not None:
        page = api.get(f"/v1/orders?merchant=acme&status=initial&limit=10{after and '&after=' + after}").value
        found += [order["biz_order_no"] for order in page["orders"]]
        after = page["next"]
    assert sorted(found) == sorted(f"DK{number}" for number in range(25))


def test_an_invalid_filter_is_refused(api: ApiCaller) -> None:
    for query in ("limit=0", "limit=501", "status=paid", "after=xyz", "status=initial&status=failed"):
        assert api.get(f"/v1/orders?{query}").status == 422, query
