"""Notify addresses: the address that a callback came in on decides how far it is trusted.

An order's own address ends in a token: unguessable, so it proves that the callback's sender was given the address.
A token is `<kid>.<b64url(biz_order_no)>.<b64url(HMAC-SHA256(key, "v1\\n" merchant "\\n" biz_order_no))>`: base64url
without padding, the text in UTF-8, the whole MAC. It authenticates the order and the merchant, not amount or status.
"""

import base64
import binascii
import contextlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.config.secrets import Secret
from service.config.settings import MerchantSettings, TokenKey
from service.domain.claims import Trust
from service.domain.order_numbers import MAX_ORDER_NO_CHARACTERS, is_order_no
from service.gateway.errors import CallbackRefused, Refusal

_BASE64_URL = re.compile(r"[A-Za-z0-9_-]+")
# kid, 128 characters of 4 bytes each, a MAC, and the dots between them.
_MAX_TOKEN_CHARACTERS = 16 + 1 + 683 + 1 + 43


class NotifyTokens:
    """Mints and verifies one merchant's tokens. Safe to share between threads."""

    def __init__(self, *, merchant: str, keys: Sequence[TokenKey]) -> None:
        """`merchant` is its slug. The first of `keys` mints; all of them verify."""
        self._merchant = merchant
        self._secrets = {key.kid: key.key.reveal().encode() for key in keys}
        self._minting_kid = keys[0].kid

    def mint(self, biz_order_no: str) -> str:
        """The token of an order. It is the same every time while the first key stays."""
        if not is_order_no(biz_order_no):
            raise ValueError(f"an order number has 1 to {MAX_ORDER_NO_CHARACTERS} printable characters")
        order = biz_order_no.encode()
        mac = self._mac(self._secrets[self._minting_kid], order)
        return f"{self._minting_kid}.{_encode(order)}.{_encode(mac)}"

    def read_order_no(self, token: str) -> str:
        """The order number in a token that one of this merchant's keys minted.

        Nothing in the token is used before its MAC is verified. Raises `CallbackRefused`.
        """
        if len(token) > _MAX_TOKEN_CHARACTERS:
            raise _malformed(f"it has {len(token)} characters; minted tokens have at most {_MAX_TOKEN_CHARACTERS}")
        parts = token.split(".")
        if len(parts) != 3:
            raise _malformed(f"it has {len(parts)} parts between dots instead of 3")
        kid, encoded_order, encoded_mac = parts
        order, mac = _decode(encoded_order), _decode(encoded_mac)
        secret = self._secrets.get(kid)
        if secret is None:
            raise CallbackRefused(
                Refusal.UNKNOWN_TOKEN_KEY,
                "the token names a key that this merchant does not have; keep an old key until its orders are finished",
            )
        if not hmac.compare_digest(self._mac(secret, order), mac):
            raise CallbackRefused(Refusal.FORGED_TOKEN, f"the token was not minted by key {kid} for this merchant")
        return _read_text(order)

    def _mac(self, secret: bytes, order: bytes) -> bytes:
        return hmac.digest(secret, b"v1\n" + self._merchant.encode() + b"\n" + order, "sha256")


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
        self._tokens = {
            slug: NotifyTokens(merchant=slug, keys=merchant.token_keys) if merchant.token_keys else _no_tokens(slug)
            for slug, merchant in merchants.items()
        }
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


def _no_tokens(slug: str) -> NotifyTokens:
    """Checks tokens, and refuses all of them."""
    return NotifyTokens(merchant=slug, keys=[TokenKey(kid="none", key=Secret(secrets.token_hex(32)))])


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    if not _BASE64_URL.fullmatch(text):
        raise _malformed("a part is not base64url without padding")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise _malformed("a part is not valid base64url") from error
    # Each token has one spelling only: the last character's spare bits must be zero.
    if _encode(data) != text:
        raise _malformed("a part is not the canonical base64url of its bytes")
    return data


def _read_text(order: bytes) -> str:
    try:
        order_no = order.decode()
    except UnicodeDecodeError as error:
        raise _malformed("its order number is not UTF-8") from error
    if not is_order_no(order_no):
        raise _malformed(f"its order number is not 1 to {MAX_ORDER_NO_CHARACTERS} printable characters")
    return order_no


def _malformed(what: str) -> CallbackRefused:
    return CallbackRefused(Refusal.MALFORMED_TOKEN, f"the token is not one of ours: {what}")
