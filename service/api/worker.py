"""gunicorn's threaded worker, which says when it is about to go."""

from types import FrameType

from gunicorn.workers.gthread import ThreadWorker


class ApiWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no type hints
    """Drains at SIGTERM: what is under way ends, and who still comes is told to go elsewhere."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: finish what is in hand and end."""
        self.app.drain.begin()
        super().handle_exit(sig, frame)
