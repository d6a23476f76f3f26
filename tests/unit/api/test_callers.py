"""Callers are told by their tokens, in a time that tells nothing."""

import hmac

import pytest

from service.api.callers import Callers, Unauthenticated
from service.settings import Secret

TOKENS = {"shop": Secret("s" * 40), "till": Secret("t" * 40)}


@pytest.fixture
def callers() -> Callers:
    return Callers(tokens=TOKENS)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_caller_is_told_by_its_token(callers: Callers, scheme: str) -> None:
    assert callers.identify(f"{scheme} {'t' * 40}") == "till"


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "Bearer", "Bearer ", "Basic " + "s" * 40, "s" * 40),
        *("Bearer " + "s" * 39, "Bearer " + "s" * 41, "Bearer s\udcff"),
    ],
)
def test_whoever_shows_no_token_of_ours_is_nobody(callers: Callers, header: str | None) -> None:
    with pytest.raises(Unauthenticated):
        callers.identify(header)


def test_nobody_calls_where_there_are_no_tokens() -> None:
    with pytest.raises(Unauthenticated):
        Callers(tokens={}).identify("Bearer ")


def test_every_token_is_compared_in_constant_time_whichever_fits(
    callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def compare(kept: bytes, shown: bytes) -> bool:
        compared.append((kept, shown))
        return real(kept, shown)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    callers.identify("Bearer " + "s" * 40)
    assert len(compared) == len(TOKENS)
    assert {len(text) for pair in compared for text in pair} == {32}
