"""The files that one callback passes through, found by sending one through the real service.

`python -m tests.support.callback_path` prints them as JSON: for each leg of the path, in the order of the first calls.
It is a process of its own because it traces every thread that it starts.
"""

import json
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from enum import IntEnum
from pathlib import Path

import structlog
import urllib3
from prometheus_client import CollectorRegistry

from service.bootstrap.dispatcher_role import make_dispatcher
from service.bootstrap.gateways import make_gateway_clients
from service.bootstrap.inquirer_role import make_inquirer
from service.bootstrap.ledger import make_ledger_engine
from service.bootstrap.ledger_role import make_ledger_consumer
from service.config.reading import load_settings
from service.config.settings import Settings
from service.ledger.schema import migrate
from tests.support.call_trace import CallTrace
from tests.support.downstream import WEBHOOK_SECRET, Downstream
from tests.support.gateway_caller import GatewayCaller
from tests.support.gateway_sender import Callback, GatewaySender, mint_token
from tests.support.ports import find_free_port
from tests.support.processes import Processes
from tests.support.running import Runnable, running
from tests.support.waiting import eventually

_TOKEN_KEY = "a key for tests only, of 32 bytes or more"
_AES_KEY = "0123456789abcdef"
_RECEIVER_CALLS = "receiver-calls"
_WITHIN_SECONDS = 60.0


class Leg(IntEnum):
    """One part of the path. Each begins in a process of its own."""

    RECEIVE = 1
    RECORD = 2
    DELIVER = 3
    INQUIRE = 4


def trace_callback() -> dict[Leg, list[str]]:
    """Send one callback from the socket to a webhook, then ask a gateway about another order.

    Everything is done twice and recorded the second time, so that what is done once per process is left out.
    """
    structlog.configure(processors=[_drop])
    with tempfile.TemporaryDirectory() as name, Downstream() as downstream:
        folder = Path(name)
        processes = Processes(folder=folder)
        # The receiver goes on during the other legs, so it has a trace of its own.
        of_receiver, of_roles = CallTrace(folder / _RECEIVER_CALLS), CallTrace(folder / "role-calls")
        of_roles.trace_new_threads()
        try:
            service = _Service(folder, processes, downstream)
            _run_legs(service, "1", lambda _: nullcontext())
            _run_legs(service, "2", lambda leg: (of_receiver if leg is Leg.RECEIVE else of_roles).recording(leg))
        finally:
            processes.kill_all()
        return {Leg.RECEIVE: of_receiver.files(Leg.RECEIVE)} | {leg: of_roles.files(leg) for leg in list(Leg)[1:]}


def _run_legs(service: "_Service", name: str, recording: Callable[[Leg], AbstractContextManager[None]]) -> None:
    order, inquired = f"ORDER-{name}", f"INQUIRED-{name}-instant-silent"
    with recording(Leg.RECEIVE):
        service.receive(order)
    with recording(Leg.RECORD):
        service.run_until_recorded(order)
    with recording(Leg.DELIVER):
        service.run_until_delivered(order)
    service.prepare_inquiry(inquired)
    with recording(Leg.INQUIRE):
        service.run_until_inquired(inquired)


class _Service:
    """A receiver and a sandbox gateway as processes; the other roles run here, one at a time."""

    def __init__(self, folder: Path, processes: Processes, downstream: Downstream) -> None:
        receiver_port, sandbox_port = find_free_port(), find_free_port()
        self._gateway_url = f"http://127.0.0.1:{sandbox_port}/gateway"
        settings_file = folder / "settings.toml"
        settings_file.write_text(
            _SETTINGS.format(port=receiver_port, gateway_url=self._gateway_url, downstream_url=downstream.url)
        )
        sandbox_file = folder / "sandbox.toml"
        sandbox_file.write_text(_SANDBOX.format(port=sandbox_port))
        self._settings: Settings = load_settings(settings_file, {})
        self._engine = make_ledger_engine(self._settings, pool_size=4)
        migrate(self._engine)
        self._ledger_file = folder / "data" / "ledger.sqlite3"
        self._downstream = downstream
        self._sender = GatewaySender(url=f"http://127.0.0.1:{receiver_port}")
        sandbox = processes.start("sandbox", "--settings", str(sandbox_file))
        receiver = processes.start_command(
            *(sys.executable, "-m", "tests.support.call_trace", folder / _RECEIVER_CALLS),
            *("--config", settings_file, "run", "receiver"),
            name="receiver",
        )
        sandbox.wait_until(lambda: _is_up(f"http://127.0.0.1:{sandbox_port}/admin/report"))
        receiver.wait_until(lambda: _is_up(f"http://127.0.0.1:{receiver_port}/readyz"))

    def receive(self, biz_order_no: str) -> None:
        """Send a callback that is believed."""
        token = mint_token(kid="k1", key=_TOKEN_KEY, merchant="acme", biz_order_no=biz_order_no)
        assert self._sender.send(Callback(biz_order_no=biz_order_no, token=token)).acknowledged

    def run_until_recorded(self, biz_order_no: str) -> None:
        """Run the ledger's role until there is a delivery for the order."""
        with self._ledger():
            self._wait_for_delivery(biz_order_no)

    def run_until_delivered(self, biz_order_no: str) -> None:
        """Run the dispatcher until the webhook has received the order's event."""
        with running(make_dispatcher(self._settings, self._engine, CollectorRegistry())):
            eventually(lambda: self._downstream.about(biz_order_no), within_seconds=_WITHIN_SECONDS)

    def prepare_inquiry(self, biz_order_no: str) -> None:
        """Record a callback that only the gateway can confirm, about an order that the gateway has."""
        caller = GatewayCaller(url=self._gateway_url, ua="ACME", key=_AES_KEY)
        caller.withhold(biz_order_no, notify_url="http://127.0.0.1:9/")
        assert self._sender.send(Callback(biz_order_no=biz_order_no, merchant="careful")).acknowledged
        with self._ledger():
            self._wait_for("SELECT 1 FROM inquiries WHERE biz_order_no = ?", biz_order_no)

    def run_until_inquired(self, biz_order_no: str) -> None:
        """Run the inquirer until there is a delivery for the order."""
        gateways = make_gateway_clients(self._settings)
        with running(make_inquirer(self._settings, self._engine, CollectorRegistry(), gateways)):
            self._wait_for_delivery(biz_order_no)

    @contextmanager
    def _ledger(self) -> Iterator[None]:
        consumer: Runnable = make_ledger_consumer(self._settings, self._engine, CollectorRegistry())
        with running(consumer):
            yield

    def _wait_for_delivery(self, biz_order_no: str) -> None:
        self._wait_for("SELECT 1 FROM deliveries WHERE biz_order_no = ?", biz_order_no)

    def _wait_for(self, query: str, biz_order_no: str) -> None:
        def is_there() -> bool:
            with closing(sqlite3.connect(self._ledger_file, timeout=_WITHIN_SECONDS)) as database:
                return database.execute(query, [biz_order_no]).fetchone() is not None

        eventually(is_there, within_seconds=_WITHIN_SECONDS)


def _drop(*_: object) -> dict[str, object]:
    raise structlog.DropEvent


def _is_up(url: str) -> bool:
    try:
        return urllib3.request("GET", url, retries=False, timeout=5.0).status == 200
    except urllib3.exceptions.HTTPError:
        return False


_SETTINGS = f"""\
data_directory = "data"

[receiver]
bind = "127.0.0.1:{{port}}"
workers = 1

[merchants.acme]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
token_keys = [{{{{ kid = "k1", key = "{_TOKEN_KEY}" }}}}]

[merchants.careful]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
required_trust = "query"

[merchants.careful.gateway]
url = "{{gateway_url}}"
ua = "ACME"
aes_key = "{_AES_KEY}"

[[endpoints]]
name = "shop"
kind = "webhook"
url = "{{downstream_url}}"
secrets = ["{WEBHOOK_SECRET}"]
"""

_SANDBOX = f"""\
bind = "127.0.0.1:{{port}}"

[[accounts]]
ua = "ACME"
aes_key = "{_AES_KEY}"
pay_types = ["baofoo_001"]
"""


if __name__ == "__main__":
    print(json.dumps({leg.name: files for leg, files in trace_callback().items()}, indent=1))
