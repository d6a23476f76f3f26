"""Merchants as a label: what outsiders send must not make new time series."""

from collections.abc import Collection

#: The label of merchants that are not configured.
UNKNOWN_MERCHANT = "unknown"


class MerchantLabel:
    """The label's value for any merchant at all. Safe to share between threads."""

    def __init__(self, merchants: Collection[str]) -> None:
        """`merchants`: the configured slugs."""
        self.known = frozenset(merchants)

    def of(self, merchant: str) -> str:
        """The slug where it is configured, else `unknown`."""
        return merchant if merchant in self.known else UNKNOWN_MERCHANT
