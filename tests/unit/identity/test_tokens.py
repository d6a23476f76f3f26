"""Callers are identified by their tokens, in a time that reveals nothing."""

import hmac

import pytest

from service.config.secrets import Secret
from service.config.settings import ApiScope, ApiToken
from service.identity.tokens import Authenticator, ScopeMissing, Unauthenticated

TOKENS = [
    ApiToken(name="shop", token=Secret("s" * 40), scopes=frozenset(ApiScope)),
    ApiToken(name="till", token=Secret("t" * 40), scopes=frozenset({ApiScope.READ, ApiScope.ANNOUNCE})),
]


@pytest.fixture
def authenticator() -> Authenticator:
    return Authenticator(tokens=TOKENS)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_caller_is_identified_by_its_token(authenticator: Authenticator, scheme: str) -> None:
    caller = authenticator.authenticate(f"{scheme} {'t' * 40}")
    assert (caller.name, caller.scopes) == ("till", frozenset({ApiScope.READ, ApiScope.ANNOUNCE}))


@pytest.mark.parametrize("scope", ApiScope)
def test_a_caller_has_the_scopes_of_its_token_and_no_others(authenticator: Authenticator, scope: ApiScope) -> None:
    authenticator.authenticate("Bearer " + "s" * 40).require(scope)
    till = authenticator.authenticate("Bearer " + "t" * 40)
    if scope in (ApiScope.READ, ApiScope.ANNOUNCE):
        till.require(scope)
    else:
        with pytest.raises(ScopeMissing, match=scope.value):
            till.require(scope)


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "Bearer", "Bearer ", "Basic " + "s" * 40, "s" * 40),
        *("Bearer " + "s" * 39, "Bearer " + "s" * 41, "Bearer s\udcff"),
    ],
)
def test_a_header_without_a_valid_token_is_refused(authenticator: Authenticator, header: str | None) -> None:
    with pytest.raises(Unauthenticated):
        authenticator.authenticate(header)


def test_without_configured_tokens_every_header_is_refused() -> None:
    with pytest.raises(Unauthenticated):
        Authenticator(tokens=[]).authenticate("Bearer ")


def test_every_token_is_compared_in_constant_time_whichever_matches(
    authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def compare(kept: bytes, shown: bytes) -> bool:
        compared.append((kept, shown))
        return real(kept, shown)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    authenticator.authenticate("Bearer " + "s" * 40)
    assert len(compared) == len(TOKENS)
    assert {len(text) for pair in compared for text in pair} == {32}
