"""Callers are told by their tokens, in a time that tells nothing."""

import hmac

import pytest

from service.api.callers import Callers, ScopeMissing, Unauthenticated
from service.config.secrets import Secret
from service.config.settings import ApiScope, ApiToken

TOKENS = [
    ApiToken(name="shop", token=Secret("s" * 40), scopes=frozenset(ApiScope)),
    ApiToken(name="till", token=Secret("t" * 40), scopes=frozenset({ApiScope.READ, ApiScope.ANNOUNCE})),
]


@pytest.fixture
def callers() -> Callers:
    return Callers(tokens=TOKENS)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_caller_is_told_by_its_token(callers: Callers, scheme: str) -> None:
    caller = callers.identify(f"{scheme} {'t' * 40}")
    assert (caller.name, caller.scopes) == ("till", {ApiScope.READ, ApiScope.ANNOUNCE})


@pytest.mark.parametrize("scope", ApiScope)
def test_a_caller_may_do_what_its_token_names_and_nothing_else(callers: Callers, scope: ApiScope) -> None:
    callers.identify("Bearer " + "s" * 40).need(scope)
    till = callers.identify("Bearer " + "t" * 40)
    if scope in (ApiScope.READ, ApiScope.ANNOUNCE):
        till.need(scope)
    else:
        with pytest.raises(ScopeMissing, match=scope.value):
            till.need(scope)


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
        Callers(tokens=[]).identify("Bearer ")


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
