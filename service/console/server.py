"""The console's worker under gunicorn."""

from http import HTTPStatus

from service.serving.http import WsgiResponse, make_response
from service.serving.threads import ThreadWorker

#: The most bytes of a form: a captured callback has 64 KiB at most.
MAX_FORM_BYTES = 256 * 1024


class ConsoleWorker(ThreadWorker):
    """Refuses with a plain text."""

    max_body_bytes = MAX_FORM_BYTES

    def make_refusal(self, status: int) -> WsgiResponse:
        """A text that quotes nothing of the request."""
        text = f"{status} {HTTPStatus(status).phrase}\n".encode()
        return make_response(HTTPStatus(status), text, content_type="text/plain")
