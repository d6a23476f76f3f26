"""Whether a worker lives, and whether it wants more work."""

from flask import Blueprint, Response

from service.web.answers import plain

_UNAVAILABLE = 503


class Health:
    """The state of one worker process, for `/healthz` and `/readyz`."""

    def __init__(self) -> None:
        self._draining = False

    def drain(self) -> None:
        """From now on, send nobody here. Safe to call from a signal handler, and twice."""
        self._draining = True

    def blueprint(self) -> Blueprint:
        """The two routes."""
        routes = Blueprint("health", __name__)
        routes.add_url_rule("/healthz", "alive", self._alive)
        routes.add_url_rule("/readyz", "ready", self._ready)
        return routes

    def _alive(self) -> Response:
        return plain("alive")

    def _ready(self) -> Response:
        # A broker that is away does not count: a worker that can say "not now" at once is ready to answer, and the
        # gateway repeats. Were it taken out of service, callers would wait for an answer that nobody gives.
        return plain("draining", _UNAVAILABLE) if self._draining else plain("ready")
