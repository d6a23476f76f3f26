"""Liveness, readiness and draining of the API, as an orchestrator sees them."""

import http.client
import signal
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import urllib3

from tests.support.deployment import Deployment, Place
from tests.support.postgresql import Database
from tests.support.waiting import eventually


def start_api(deployment: Deployment) -> str:
    url = deployment.give_api(workers=1)
    deployment.start("api")
    return url


def status_of(url: str, path: str) -> int:
    try:
        return urllib3.request("GET", url + path, retries=False, timeout=10).status
    except urllib3.exceptions.HTTPError:
        return 0


def test_it_is_ready_while_the_ledger_answers_and_always_alive(
    deploy: Callable[..., Deployment], own_postgresql: Database
) -> None:
    deployment = deploy(Place(database_url=own_postgresql.url))
    url = start_api(deployment)
    deployment.role("api").wait_until(lambda: status_of(url, "/readyz") == 200)

    own_postgresql.cluster.freeze()
    eventually(lambda: status_of(url, "/readyz") == 503)
    assert status_of(url, "/healthz") == 200
    own_postgresql.cluster.thaw()
    eventually(lambda: status_of(url, "/readyz") == 200, within_seconds=60)

    own_postgresql.cluster.stop()
    eventually(lambda: status_of(url, "/readyz") == 503)
    assert status_of(url, "/healthz") == 200
    own_postgresql.cluster.start()
    eventually(lambda: status_of(url, "/readyz") == 200, within_seconds=60)


def test_after_sigterm_it_answers_open_connections_that_it_is_draining(
    fresh_deployment: Deployment,
) -> None:
    url = start_api(fresh_deployment)
    fresh_deployment.role("api").wait_until(lambda: status_of(url, "/readyz") == 200)
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)

    def ask() -> tuple[int, bytes]:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return answer.status, answer.read()

    assert ask() == (200, b"ready")
    fresh_deployment.role("api").signal(signal.SIGTERM)
    # The same connection, or it would be refused: of the answers, the first that is no longer "ready".
    assert eventually(lambda: next(iter({ask()} - {(200, b"ready")}), None)) == (503, b"draining")
    connection.close()
    assert fresh_deployment.role("api").wait() == 0


def test_after_sigterm_it_refuses_new_connections_at_once_and_keeps_open_ones(
    fresh_deployment: Deployment,
) -> None:
    url = start_api(fresh_deployment)
    api = fresh_deployment.role("api")
    api.wait_until(lambda: status_of(url, "/readyz") == 200)
    address = (urlsplit(url).hostname, urlsplit(url).port)

    def is_refused() -> bool:
        try:
            socket.create_connection(address, timeout=10).close()
        except ConnectionRefusedError:
            return True
        return False

    with socket.create_connection(address, timeout=10) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\n")
        # It is read from by then, since whoever came later has an answer.
        assert status_of(url, "/healthz") == 200
        api.signal(signal.SIGTERM)
        eventually(is_refused)
        assert api.running
        client.sendall(b"Host: api\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
    assert api.wait() == 0
