"""The API as a platform sees it: ready while its ledger answers, alive all the while, and draining at its end."""

import http.client
import signal
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


def test_it_is_ready_while_the_ledger_answers_and_alive_all_the_while(
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


def test_at_sigterm_it_says_that_it_is_draining_to_whoever_is_still_connected(
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
