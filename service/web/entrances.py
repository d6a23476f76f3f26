"""How far a callback is to be believed, told by the address that it came in on."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from service.claims import Trust
from service.gateway.capability import CapabilityKey, CapabilityTokens
from service.gateway.errors import CallbackRefused, Refusal
from service.settings import MerchantSettings


class UnknownMerchant(Exception):
    """No merchant of that name is configured. For logs and metrics only: callers see the same failure as ever."""

    reason = "unknown-merchant"
    detail = "the address names no configured merchant; compare notify_url with the settings"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrance:
    """The address that one callback came in on, looked up."""

    merchant: MerchantSettings
    trust: Trust
    #: The order that the address was minted for; None for the merchant's common address.
    biz_order_no: str | None


class Entrances:
    """The addresses of all merchants. Safe to use from many threads."""

    def __init__(self, *, merchants: Mapping[str, MerchantSettings]) -> None:
        self._merchants = merchants
        self._tokens = {slug: _tokens(merchant) for slug, merchant in merchants.items()}
        self._nobody = _no_tokens("nobody")

    def find(self, slug: str, token: str | None) -> Entrance:
        """The entrance at `/notify/<slug>` or `/notify/<slug>/<token>`.

        Raises `UnknownMerchant`, or `CallbackRefused` for a token that is not one of the merchant's, or for none where
        the merchant requires one.
        """
        # An unknown merchant's token is checked as well, against a key that nobody has: it takes as long.
        tokens = self._tokens.get(slug, self._nobody)
        biz_order_no = None if token is None else tokens.read_order_no(token)
        merchant = self._merchants.get(slug)
        if merchant is None:
            raise UnknownMerchant
        if biz_order_no is not None:
            return Entrance(merchant=merchant, trust=Trust.CAPABILITY, biz_order_no=biz_order_no)
        if merchant.required_trust is Trust.CAPABILITY:
            raise CallbackRefused(
                Refusal.MISSING_TOKEN, f"merchant {slug} requires `capability`: use the notify_url minted for the order"
            )
        return Entrance(merchant=merchant, trust=Trust.CHECKSUM, biz_order_no=None)


def _tokens(merchant: MerchantSettings) -> CapabilityTokens:
    if not merchant.token_keys:
        return _no_tokens(merchant.slug)
    keys = [CapabilityKey(kid=key.kid, secret=key.key.reveal().encode()) for key in merchant.token_keys]
    return CapabilityTokens(merchant=merchant.slug, keys=keys)


def _no_tokens(slug: str) -> CapabilityTokens:
    """Checks tokens, and finds each of them wrong."""
    return CapabilityTokens(merchant=slug, keys=[CapabilityKey(kid="none", secret=secrets.token_bytes(32))])
