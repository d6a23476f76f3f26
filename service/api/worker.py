"""gunicorn's threaded worker, which says when it is about to go."""

from types import FrameType

from gunicorn.workers.gthread import ThreadWorker


class ApiWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no type hints
    """Drains at SIGTERM: what is under way ends, and who still comes is told to go elsewhere."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: finish what is in hand and end."""
        self.app.drain.begin()
        super().handle_exit(sig, frame)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Start or stop accepting; at shutdown for good, and what waits in the backlog is taken before."""
        ending = not enabled and not self.alive
        if ending:
            for listener in self.sockets:
                self._take_backlog(listener)
        super().set_accept_enabled(enabled)
        if ending:
            # At once, so that nobody connects to a backlog from which no one takes any more.
            for listener in self.sockets:
                listener.close()

    def _take_backlog(self, listener: object) -> None:
        taken = -1
        while taken != self.nr_conns < self.worker_connections:
            taken = self.nr_conns
            self.accept(listener)
