"""The service as processes, on both of its foundations; whatever is tested on one is tested on the other."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.api import ApiCaller
from tests.support.deployment import ROLES, Deployment, Place
from tests.support.downstream import Downstream
from tests.support.ledger import LedgerDatabases
from tests.support.postgresql import Database
from tests.support.processes import answers

FindPlace = Callable[[], Place]


@pytest.fixture(scope="session", params=["embedded", "servers"])
def find_place(request: pytest.FixtureRequest, ledger_databases: LedgerDatabases) -> FindPlace:
    """Makes new, empty places to live on: files, or a virtual host and a database of the shared servers."""
    if request.param == "embedded":
        return Place
    rabbitmq = request.getfixturevalue("rabbitmq")
    cluster = request.getfixturevalue("postgresql_cluster")
    return lambda: Place(amqp_url=rabbitmq.create_virtual_host(), database_url=ledger_databases.make(cluster))


@pytest.fixture(scope="module")
def _standing(
    find_place: FindPlace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Deployment, Downstream, ApiCaller]]:
    with (
        Downstream() as downstream,
        Deployment(
            folder=tmp_path_factory.mktemp("standing"), place=find_place(), downstreams={"shop": downstream}
        ) as deployment,
    ):
        deployment.prepare()
        api_url = deployment.give_api(workers=1)
        deployment.start("receiver", "dispatcher", "api")
        deployment.start("ledger", module="tests.support.hasty_roles")
        deployment.wait_until_receiving()
        deployment.role("api").wait_until(lambda: answers(f"{api_url}/healthz"))
        caller = ApiCaller(url=api_url)
        yield deployment, downstream, caller
        caller.close()


@pytest.fixture
def deployment(_standing: tuple[Deployment, Downstream, ApiCaller]) -> Deployment:
    """A running deployment that tests share: leave it running, and use order numbers of your own."""
    return _standing[0]


@pytest.fixture
def shop(_standing: tuple[Deployment, Downstream, ApiCaller]) -> Downstream:
    """The webhook endpoint of `deployment`; leave it healthy."""
    return _standing[1]


@pytest.fixture
def api(_standing: tuple[Deployment, Downstream, ApiCaller]) -> ApiCaller:
    """The API of `deployment`."""
    return _standing[2]


@pytest.fixture
def own_shop() -> Iterator[Downstream]:
    """The webhook endpoint of `own_deployment`, to treat as one likes."""
    with Downstream() as downstream:
        yield downstream


class Deploy:
    """Makes deployments of the test's own, with the schema in place and no role started."""

    def __init__(self, *, folder: Path, shop: Downstream, held: ExitStack) -> None:
        self._folder = folder
        self._shop = shop
        self._held = held
        self._made: list[Deployment] = []

    def __call__(self, place: Place, *, spool: bool = False, **others: Downstream) -> Deployment:
        folder = self._folder / f"deployment-{len(self._made) + 1}"
        folder.mkdir()
        one = Deployment(folder=folder, place=place, downstreams={"shop": self._shop, **others}, spool=spool)
        self._made.append(self._held.enter_context(one))
        one.prepare()
        return one

    def describe(self) -> str:
        """What the processes of all of them wrote last."""
        return "\n\n".join(one.describe() for one in self._made)


@pytest.fixture
def deploy(own_shop: Downstream, tmp_path: Path) -> Iterator[Deploy]:
    """Makes deployments, and ends them all."""
    with ExitStack() as held:
        yield Deploy(folder=tmp_path, shop=own_shop, held=held)


@pytest.fixture
def fresh_deployment(deploy: Callable[..., Deployment], find_place: FindPlace) -> Deployment:
    """A deployment of the test's own, of which nothing runs yet."""
    return deploy(find_place())


@pytest.fixture
def own_deployment(fresh_deployment: Deployment) -> Deployment:
    """A running deployment whose processes the test may end and start again."""
    fresh_deployment.start(*ROLES)
    fresh_deployment.wait_until_receiving()
    return fresh_deployment


@pytest.fixture
def servers(amqp_url: str, postgresql: Database) -> Place:
    """A virtual host and a database, for what only RabbitMQ and PostgreSQL do."""
    return Place(amqp_url=amqp_url, database_url=postgresql.url)


@pytest.fixture
def order(request: pytest.FixtureRequest) -> str:
    """An order number that no other test uses, with characters that addresses and ids have to escape."""
    return f"DK/{request.node.name}.单 1"
