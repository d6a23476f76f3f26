"""Shows what reaches the demo's shop."""

import threading

from rich.console import Console

from service.claims import OrderStatus
from service.cli.demo_downstream import ReceivedEvent

#: A person has seen enough then; the rest is counted.
_SHOWN_AT_FIRST = 8
_COLOURS = {OrderStatus.SUCCEEDED: "green", OrderStatus.FAILED: "red"}


class EventPrinter:
    """Prints the first few events, and from `show_all` on every one. Safe to call from any thread."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._left: int | None = _SHOWN_AT_FIRST
        self._lock = threading.Lock()

    def show(self, event: ReceivedEvent) -> None:
        """Print the event, if it is its turn."""
        with self._lock:
            if self._left == 0:
                return
            if self._left is not None:
                self._left -= 1
            last_of_them = self._left == 0
        colour = _COLOURS.get(event.status, "yellow")
        self._console.print(
            f"  shop heard [{colour}]{event.type.value:<18}[/] {event.biz_order_no}  ¥{event.amount}", highlight=False
        )
        if last_of_them:
            self._console.print("  … and so on; the others are counted.", style="dim")

    def show_all(self) -> None:
        """From now on, print every event."""
        with self._lock:
            self._left = None
