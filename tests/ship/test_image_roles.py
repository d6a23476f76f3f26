"""The image's roles, read-only and without rights, on RabbitMQ and PostgreSQL: one callback all the way."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.callbacks import Callback, GatewaySender, mint_token
from tests.support.containers import LOCKED_DOWN, Container, ContainerTools, Image
from tests.support.downstream import WEBHOOK_SECRET, Downstream
from tests.support.postgresql import Database
from tests.support.processes import answers, find_free_port
from tests.support.waiting import eventually

# Building the image is not what the limit is for.
pytestmark = pytest.mark.timeout(180, func_only=True)

_TOKEN_KEY = "the token key of acme, for tests only"
_API_TOKEN = "the-token-of-the-shop-for-tests-only"
_CONSUMERS = ("ledger", "inquirer", "dispatcher")
_SETTINGS = """\
[receiver]
bind = "127.0.0.1:{receiver_port}"

[api]
bind = "127.0.0.1:{api_port}"
tokens = [{{ name = "shop", token = {{ env = "SHOP_API_TOKEN" }}, scopes = ["read", "announce"] }}]

[merchants.acme]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
required_trust = "capability"
token_keys = [{{ kid = "k1", key = {{ env = "ACME_TOKEN_KEY" }} }}]
gateway = {{ url = "http://127.0.0.1:9/", ua = "ACME", aes_key = "0123456789abcdef" }}

[[endpoints]]
name = "shop"
kind = "webhook"
url = "{webhook_url}"
secrets = [{{ env = "SHOP_WEBHOOK_SECRET" }}]
"""

Contain = Callable[..., Container]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the roles listen, and what they are told."""

    settings: Path
    receiver_url: str
    api_url: str


@pytest.fixture
def shop() -> Iterator[Downstream]:
    with Downstream() as downstream:
        yield downstream


@pytest.fixture
def place(tmp_path: Path, shop: Downstream) -> Place:
    ports = find_free_port(), find_free_port()
    folder = tmp_path / f"roles-{ports[0]}"
    folder.mkdir()
    settings = folder / "payment-callbacks.toml"
    settings.write_text(_SETTINGS.format(receiver_port=ports[0], api_port=ports[1], webhook_url=shop.url))
    # The user of the container is nobody here.
    for path in (tmp_path, folder, settings):
        path.chmod(0o755)
    receiver_url, api_url = (f"http://127.0.0.1:{port}" for port in ports)
    return Place(settings=settings, receiver_url=receiver_url, api_url=api_url)


@pytest.fixture
def contain(
    container_tools: ContainerTools, image: Image, amqp_url: str, postgresql: Database, place: Place
) -> Iterator[Contain]:
    """Starts `payment-callbacks <arguments>` in a container; none outlives the test."""
    environment = {
        "AMQP_URL": amqp_url,
        "DATABASE_URL": postgresql.url,
        "ACME_TOKEN_KEY": _TOKEN_KEY,
        "SHOP_API_TOKEN": _API_TOKEN,
        "SHOP_WEBHOOK_SECRET": WEBHOOK_SECRET,
    }
    folder = place.settings.parent
    options = (*LOCKED_DOWN, f"--volume={place.settings}:/etc/payment-callbacks/payment-callbacks.toml:ro")
    started: list[Container] = []

    def start(*arguments: str) -> Container:
        role = Container(
            *arguments,
            name=f"{folder.name}-{'-'.join(arguments)}",
            tools=container_tools,
            image=image.name,
            options=options,
            folder=folder,
            environment=environment,
        )
        started.append(role)
        role.start()
        return role

    yield start
    for role in started:
        role.remove()


def test_one_callback_goes_all_the_way_through_roles_that_may_write_nowhere_and_all_of_them_end_in_good_order(
    contain: Contain, place: Place, shop: Downstream
) -> None:
    assert contain("migrate").wait() == 0
    receiver, api = contain("run", "receiver"), contain("run", "api")
    consumers = [contain("run", role) for role in _CONSUMERS]
    receiver.wait_until(lambda: answers(f"{place.receiver_url}/readyz"))
    api.wait_until(lambda: answers(f"{place.api_url}/healthz"))

    token = mint_token(kid="k1", key=_TOKEN_KEY, merchant="acme", biz_order_no="DK1")
    sender = GatewaySender(url=place.receiver_url)
    try:
        assert sender.send(Callback(biz_order_no="DK1", token=token)).acknowledged
    finally:
        sender.close()
    (event,) = eventually(lambda: shop.about("DK1"))
    assert (event.type, event.sequence) == ("payment.succeeded", 1)

    for role in (receiver, api, *consumers):
        assert role.stop() == 0, role.output


def test_a_role_in_it_has_no_rights_and_cannot_change_what_it_runs(contain: Contain, place: Place) -> None:
    receiver = contain("run", "receiver")
    receiver.wait_until(lambda: answers(f"{place.receiver_url}/readyz"))
    status = dict(
        line.split(":\t", 1) for line in receiver.execute("cat", "/proc/1/status").splitlines() if ":\t" in line
    )
    assert status["Uid"].split() == ["10001"] * 4
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    for folder in ("/tmp", "/var/lib/payment-callbacks", "/opt/payment-callbacks"):
        assert receiver.execute("sh", "-c", f"touch {folder}/file 2>/dev/null || echo refused").strip() == "refused"


def test_what_a_platform_has_to_know_of_it(
    contain: Contain, place: Place, image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver = contain("run", "receiver")
    receiver.wait_until(lambda: answers(f"{place.receiver_url}/readyz"))
    ready_at = datetime.now(UTC)
    seconds = (ready_at - receiver.started_at()).total_seconds()
    ours = image.size_bytes - image.base_size_bytes
    with capsys.disabled():
        print(
            f"\nThe image: {image.size_bytes / 1e6:.0f} MB unpacked, {ours / 1e6:.0f} MB of them on top of its base. "
            f"The receiver: {seconds:.1f} s from its start to /readyz."
        )
