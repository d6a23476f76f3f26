"""The internal API's worker under gunicorn."""

import json
from http import HTTPStatus

from service.api.problems import CONTENT_TYPE, Problem
from service.api.request_schemas import MAX_BODY_BYTES
from service.serving.http import WsgiResponse, make_response
from service.serving.threads import ThreadWorker


class ApiWorker(ThreadWorker):
    """Refuses with a problem (RFC 9457)."""

    max_body_bytes = MAX_BODY_BYTES

    async def end(self) -> None:
        """Abandon the threads, and send the last spans."""
        await super().end()
        self.wsgi.extensions["tracing"].close()

    def make_refusal(self, status: int) -> WsgiResponse:
        """A problem that quotes nothing of the request."""
        problem = Problem(status=status, kind="http", title=HTTPStatus(status).phrase)
        return make_response(HTTPStatus(status), json.dumps(problem.to_json()).encode(), content_type=CONTENT_TYPE)
