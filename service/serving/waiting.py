"""The connections from which a request is still to come, by when their time is up."""

import math
import time
from itertools import takewhile

from service.serving.connection import Connection


class WaitingConnections:
    """Connections in the order of their deadlines. All get the same time, so the one added last is due last."""

    def __init__(self, *, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._latest = math.inf
        self._connections: dict[Connection, None] = {}

    def __bool__(self) -> bool:
        return bool(self._connections)

    def add(self, connection: Connection) -> None:
        """Give it its whole time, from now on; one that waits already starts again."""
        connection.deadline = min(time.monotonic() + self._timeout_seconds, self._latest)
        self._connections.pop(connection, None)
        self._connections[connection] = None

    def remove(self, connection: Connection) -> None:
        """Wait for it no longer; nothing happens where it does not wait."""
        self._connections.pop(connection, None)

    def take_oldest(self) -> Connection | None:
        """The connection that is due first, due or not; it waits no longer."""
        for connection in self._connections:
            del self._connections[connection]
            return connection
        return None

    def take_due(self) -> list[Connection]:
        """The connections whose time is up; they wait no longer."""
        now = time.monotonic()
        due = list(takewhile(lambda connection: connection.deadline <= now, self._connections))
        for connection in due:
            del self._connections[connection]
        return due

    def seconds_to_next(self, *, at_most: float) -> float:
        """How long nobody's time will be up."""
        for connection in self._connections:
            return min(at_most, max(connection.deadline - time.monotonic(), 0.0))
        return at_most

    def cap(self, deadline: float) -> None:
        """Give nobody, from now on, more time than until `deadline` (`time.monotonic`)."""
        self._latest = deadline
        for connection in self._connections:
            connection.deadline = min(connection.deadline, deadline)
