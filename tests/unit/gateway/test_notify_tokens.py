import base64
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.config.secrets import Secret
from service.config.settings import TokenKey
from service.gateway.errors import CallbackRefused, Refusal
from service.gateway.notify_addresses import NotifyTokens

OLD = TokenKey(kid="2025", key=Secret("o" * 32))
NEW = TokenKey(kid="2026", key=Secret("n" * 32))
TOKENS = NotifyTokens(merchant="acme", keys=[NEW, OLD])
ORDER_NUMBERS = st.text(min_size=1, max_size=128).filter(str.isprintable)


def _encode(data: Any) -> Any:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _make_token(order: Any, *, kid: str = "2026", secret: Any = b"n" * 32, merchant: bytes = b"acme") -> str:
    mac = hmac.digest(secret, b"v1\n" + merchant + b"\n" + order, "sha256")
    return f"{kid}.{_encode(order)}.{_encode(mac)}"


def _refusal(token: Any, tokens: Any = TOKENS) -> Any:
    with pytest.raises(CallbackRefused) as refused:
        tokens.read_order_no(token)
    return refused.value.reason


@given(order_no=ORDER_NUMBERS)
def test_a_token_gives_back_the_order_number_it_was_minted_for(order_no: Any) -> None:
    assert TOKENS.read_order_no(TOKENS.mint(order_no)) == order_no


def test_a_token_is_what_the_documented_formula_makes() -> None:
    assert TOKENS.mint("DK 1/中") == _make_token("DK 1/中".encode())


def test_both_keys_verify_and_the_first_one_mints() -> None:
    minted_before = NotifyTokens(merchant="acme", keys=[OLD]).mint("DK1")

    assert TOKENS.mint("DK1").startswith("2026.")
    assert TOKENS.read_order_no(minted_before) == "DK1"


def test_a_token_of_a_key_that_is_gone_is_refused() -> None:
    assert _refusal(TOKENS.mint("DK1"), NotifyTokens(merchant="acme", keys=[OLD])) is Refusal.UNKNOWN_TOKEN_KEY


def test_a_token_of_another_merchant_is_refused() -> None:
    assert _refusal(TOKENS.mint("DK1"), NotifyTokens(merchant="acme2", keys=[NEW])) is Refusal.FORGED_TOKEN


def test_a_token_with_another_orders_number_is_refused() -> None:
    kid, _, mac = TOKENS.mint("DK1").split(".")

    assert _refusal(f"{kid}.{_encode(b'DK2')}.{mac}") is Refusal.FORGED_TOKEN


def test_a_token_under_the_other_keys_name_is_refused() -> None:
    assert _refusal(TOKENS.mint("DK1").replace("2026", "2025", 1)) is Refusal.FORGED_TOKEN


def test_a_cut_mac_is_refused() -> None:
    kid, order, mac = TOKENS.mint("DK1").split(".")
    shorter = _encode(base64.urlsafe_b64decode(mac + "=")[:16])

    assert _refusal(f"{kid}.{order}.{shorter}") is Refusal.FORGED_TOKEN


@given(order_no=ORDER_NUMBERS, data=st.data())
def test_a_token_with_any_one_character_changed_is_refused(order_no: Any, data: Any) -> None:
    token = TOKENS.mint(order_no)
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters().filter(lambda character: character != token[place]))

    with pytest.raises(CallbackRefused):
        TOKENS.read_order_no(token[:place] + other + token[place + 1 :])


@given(token=st.text(max_size=60) | st.text(alphabet="2026.abAB-_=", max_size=60))
def test_no_text_raises_anything_but_a_refusal(token: Any) -> None:
    with pytest.raises(CallbackRefused):
        TOKENS.read_order_no(token)


def _respell(part: Any) -> Any:
    """Another spelling of the same bytes: the last character's spare bits set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return part[:-1] + alphabet[alphabet.index(part[-1]) + 1]


def test_each_token_has_one_spelling() -> None:
    kid, order, mac = TOKENS.mint("DK1x").split(".")

    for token in (
        f"{kid}.{_respell(order)}.{mac}",
        f"{kid}.{order}.{_respell(mac)}",
        f"{kid}.{order}==.{mac}",
        f"{kid}.{order}.{mac}=",
        f" {kid}.{order}.{mac}",
        f"{kid}.{order}.{mac}\n",
        f"{kid}.{order}.{mac}.",
        f"{kid}..{mac}",
        f"{kid}.{order}.",
        f"{order}.{mac}",
        "",
        "." * 500,
        f"{kid}.{'A' * 5000}.{mac}",
    ):
        with pytest.raises(CallbackRefused):
            TOKENS.read_order_no(token)
    assert _refusal(f"{kid}.{_respell(order)}.{mac}") is Refusal.MALFORMED_TOKEN
    assert _refusal(f"{kid}.{order}.{_respell(mac)}") is Refusal.MALFORMED_TOKEN


@pytest.mark.parametrize("order", [b"\xff\xfe", b"a\nb", b"", b"x" * 129])
def test_a_rightly_made_token_for_what_is_no_order_number_is_refused(order: Any) -> None:
    assert _refusal(_make_token(order)) is Refusal.MALFORMED_TOKEN


@pytest.mark.parametrize("order_no", ["", "x" * 129, "a\nb", "a\x00", "\ud800"])
def test_no_token_is_minted_for_what_is_no_order_number(order_no: Any) -> None:
    with pytest.raises(ValueError, match="1 to 128 printable characters"):
        TOKENS.mint(order_no)


def test_the_longest_order_number_has_a_token() -> None:
    longest = "𠮷" * 128

    assert TOKENS.read_order_no(TOKENS.mint(longest)) == longest


def test_a_key_does_not_show_its_secret() -> None:
    assert "nnn" not in repr(NEW)
