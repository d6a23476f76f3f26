"""Liveness, readiness and draining of the API, as an orchestrator sees them."""

import http.client
import signal
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import urllib3

from tests.support.deployment import Deployment, Place
from tests.support.postgresql import Database
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually


def start_api(deployment: Deployment) -> str:
    url = deployment.give_api(workers=1)
    deployment.start("api")
    deployment.role("api").wait_until(lambda: status_of(url, "/readyz") == 200)
    return url


def status_of(url: str, path: str) -> int:
    try:
        return urllib3.request("GET", url + path, retries=False, timeout=HANGS_AFTER_SECONDS).status
    except urllib3.exceptions.HTTPError:
        return 0


def test_it_is_ready_while_the_ledger_answers_and_always_alive(
    deploy: Callable[..., Deployment], own_postgresql: Database
) -> None:
    url = start_api(deploy(Place(database_url=own_postgresql.url)))

    own_postgresql.cluster.freeze()
    eventually(lambda: status_of(url, "/readyz") == 503)
    assert status_of(url, "/healthz") == 200
    own_postgresql.cluster.thaw()
    eventually(lambda: status_of(url, "/readyz") == 200)

    own_postgresql.cluster.stop()
    eventually(lambda: status_of(url, "/readyz") == 503)
    assert status_of(url, "/healthz") == 200
    own_postgresql.cluster.start()
    eventually(lambda: status_of(url, "/readyz") == 200)


def test_after_sigterm_it_refuses_new_connections_and_answers_on_open_ones_also_that_it_is_draining(
    deploy: Callable[..., Deployment],
) -> None:
    deployment = deploy(Place())
    url = start_api(deployment)
    api = deployment.role("api")
    address = (urlsplit(url).hostname, urlsplit(url).port)
    kept = http.client.HTTPConnection(urlsplit(url).netloc, timeout=HANGS_AFTER_SECONDS)

    def ask() -> tuple[int, bytes]:
        kept.request("GET", "/readyz")
        answer = kept.getresponse()
        return answer.status, answer.read()

    def is_refused() -> bool:
        try:
            socket.create_connection(address, timeout=HANGS_AFTER_SECONDS).close()
        except ConnectionRefusedError:
            return True
        return False

    assert ask() == (200, b"ready")
    with socket.create_connection(address, timeout=HANGS_AFTER_SECONDS) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\n")
        # It is read from by then, since whoever came later has an answer.
        assert status_of(url, "/healthz") == 200
        api.signal(signal.SIGTERM)
        # Of the answers on the kept connection, the first that is no longer "ready".
        assert eventually(lambda: next(iter({ask()} - {(200, b"ready")}), None)) == (503, b"draining")
        eventually(is_refused)
        assert api.running
        client.sendall(b"Host: api\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
    kept.close()
    assert api.wait() == 0
