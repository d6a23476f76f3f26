"""Shows what reaches the demo's shop."""

from collections.abc import Collection

from rich.console import Console

from service.demo.downstream import ReceivedEvent
from service.domain.claims import OrderStatus

_COLOURS = {OrderStatus.SUCCEEDED: "green", OrderStatus.FAILED: "red"}


class EventPrinter:
    """Prints the events of a few orders, and from `show_all` on every one. Safe to call from any thread."""

    def __init__(self, console: Console, *, followed: Collection[str]) -> None:
        """`followed` are order numbers."""
        self._console = console
        self._followed: Collection[str] | None = followed
        self._width = max(map(len, followed), default=0)

    def show(self, event: ReceivedEvent) -> None:
        """Print the event, if its order is followed."""
        if self._followed is not None and event.biz_order_no not in self._followed:
            return
        colour = _COLOURS.get(event.status, "yellow")
        self._console.print(
            f"  shop heard [{colour}]{event.type.value:<18}[/] {event.biz_order_no:<{self._width}}  ¥{event.amount}",
            highlight=False,
        )

    def show_all(self) -> None:
        """From now on, print every event."""
        self._followed = None
