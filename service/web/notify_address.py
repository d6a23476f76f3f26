"""Notify addresses: the address that a callback came in on decides how far it is trusted."""

import contextlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from service.config.settings import MerchantSettings
from service.domain.claims import Trust
from service.gateway.errors import CallbackRefused, Refusal
from service.gateway.notify_tokens import NotifyTokenKey, NotifyTokens


class UnknownMerchant(Exception):
    """No merchant of that name is configured. For logs and metrics only: callers see the usual failure."""

    reason = "unknown-merchant"
    detail = "the address names no configured merchant; compare notify_url with the settings"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyAddress:
    """The address that a callback came in on."""

    merchant: MerchantSettings
    trust: Trust
    #: The order that the address was minted for; None for the merchant's common address.
    biz_order_no: str | None


class NotifyAddresses:
    """The addresses of all merchants. Safe to use from many threads."""

    def __init__(self, *, merchants: Mapping[str, MerchantSettings]) -> None:
        self._merchants = merchants
        self._tokens = {slug: _tokens(merchant) for slug, merchant in merchants.items()}
        self._decoy = _no_tokens("nobody")

    def find(self, slug: str, token: str | None) -> NotifyAddress:
        """The address `/notify/<slug>` or `/notify/<slug>/<token>`.

        Raises `UnknownMerchant`, or `CallbackRefused` where the token is not the merchant's, or is missing although the
        merchant requires one.
        """
        merchant = self._merchants.get(slug)
        if merchant is None:
            self._spend_the_same_time(token)
            raise UnknownMerchant
        if token is not None:
            biz_order_no = self._tokens[slug].read_order_no(token)
            return NotifyAddress(merchant=merchant, trust=Trust.CAPABILITY, biz_order_no=biz_order_no)
        if merchant.require_token or merchant.required_trust is Trust.CAPABILITY:
            raise CallbackRefused(
                Refusal.MISSING_TOKEN, f"merchant {slug} requires a token: use the notify_url minted for the order"
            )
        return NotifyAddress(merchant=merchant, trust=Trust.CHECKSUM, biz_order_no=None)

    def _spend_the_same_time(self, token: str | None) -> None:
        """Check the token of an unknown merchant against an unused key, so that timing does not reveal merchants."""
        if token is not None:
            with contextlib.suppress(CallbackRefused):
                self._decoy.read_order_no(token)


def _tokens(merchant: MerchantSettings) -> NotifyTokens:
    if not merchant.token_keys:
        return _no_tokens(merchant.slug)
    keys = [NotifyTokenKey(kid=key.kid, secret=key.key.reveal().encode()) for key in merchant.token_keys]
    return NotifyTokens(merchant=merchant.slug, keys=keys)


def _no_tokens(slug: str) -> NotifyTokens:
    """Checks tokens, and refuses all of them."""
    return NotifyTokens(merchant=slug, keys=[NotifyTokenKey(kid="none", secret=secrets.token_bytes(32))])
