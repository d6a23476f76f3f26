"""The files that one callback passes through, found by sending one through the real service.

`python -m tests.support.callback_path` prints them as JSON: for each leg of the path, in the order of the first calls.
It is a process of its own because it traces every thread that it starts.
`python -m tests.support.callback_path --write` writes them to docs/architecture.md, between the two markers.
"""

import ast
import json
import logging
import mmap
import os
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import Any

import urllib3
from prometheus_client import CollectorRegistry

from service.bootstrap.dispatcher_role import make_dispatcher
from service.bootstrap.gateways import make_gateway_clients
from service.bootstrap.inquirer_role import make_inquirer
from service.bootstrap.ledger import make_ledger_engine
from service.bootstrap.ledger_role import make_ledger_consumer
from service.cli.__main__ import main as run_command
from service.config.reading import load_settings
from service.config.settings import Settings
from service.ledger.schema import migrate
from tests.support.callbacks import Callback, GatewaySender, mint_token
from tests.support.downstream import WEBHOOK_SECRET, Downstream
from tests.support.gateway import GatewayCaller
from tests.support.processes import Processes, Runnable, find_free_port, running
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

_REPOSITORY = Path(__file__).parents[2]
# Not `service/cli`: it only starts the roles. Logging is left out too, since any file may log.
_TRACED = tuple(f"{_REPOSITORY}/{package}/" for package in ("service", "consumers"))
_UNTRACED = tuple(f"{_REPOSITORY}/{start}" for start in ("service/cli/", "service/runtime/log"))


class CallTrace:
    """Writes the name of each file that is called to `folder`, once per leg and thread. Processes may share it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        switch = folder / "leg"
        if not switch.exists():
            switch.write_bytes(b"\0")
        with switch.open("r+b") as file:
            # The number of the leg that is recorded, for all processes; 0 for none.
            self._leg = mmap.mmap(file.fileno(), 1)
        self._calls = folder / "calls"
        self._output = os.open(self._calls, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._seen: set[tuple[int, int, str]] = set()

    def start(self) -> None:
        """Trace the calling thread, its forks, and the threads that they start from now on."""
        self.trace_new_threads()
        sys.setprofile(self._note)

    def trace_new_threads(self) -> None:
        """Trace the threads that are started from now on, but not the calling one."""
        threading.setprofile(self._note)

    @contextmanager
    def recording(self, leg: int) -> Iterator[None]:
        """Record one leg of the path. `leg` is 1 or more."""
        self._leg[0] = leg
        try:
            yield
        finally:
            self._leg[0] = 0

    def files(self, leg: int) -> list[str]:
        """The files that were called during `leg`, relative to the repository, in the order of their first calls.

        Thread by thread, since the order between threads is a matter of chance.
        """
        threads: dict[str, list[str]] = {}
        for line in self._calls.read_text().splitlines():
            number, thread, name = line.split(" ", 2)
            if int(number) == leg:
                threads.setdefault(thread, []).append(name)
        return list(dict.fromkeys(name for names in threads.values() for name in names))

    def _note(self, frame: FrameType, event: str, _argument: Any) -> None:
        leg = self._leg[0]
        if not leg or event != "call":
            return
        name, thread = frame.f_code.co_filename, threading.get_ident()
        if (leg, thread, name) in self._seen or not name.startswith(_TRACED) or name.startswith(_UNTRACED):
            return
        if frame.f_code.co_name == "<module>":  # an import is not a call
            return
        self._seen.add((leg, thread, name))
        os.write(self._output, f"{leg} {thread} {Path(name).relative_to(_REPOSITORY)}\n".encode())


_TOKEN_KEY = "a key for tests only, of 32 bytes or more"
_AES_KEY = "0123456789abcdef"
_RECEIVER_CALLS = "receiver-calls"


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
    logging.disable()
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
            *(sys.executable, "-m", "tests.support.callback_path", "--trace", folder / _RECEIVER_CALLS),
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
            eventually(lambda: self._downstream.about(biz_order_no))

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
            with closing(sqlite3.connect(self._ledger_file, timeout=HANGS_AFTER_SECONDS)) as database:
                return database.execute(query, [biz_order_no]).fetchone() is not None

        eventually(is_there)


def _is_up(url: str) -> bool:
    try:
        return urllib3.request("GET", url, retries=False, timeout=HANGS_AFTER_SECONDS).status == 200
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


PAGE = _REPOSITORY / "docs" / "architecture.md"
_BEGIN, _END = "<!-- path: begin -->\n", "<!-- path: end -->\n"

_TITLES = {
    Leg.RECEIVE: "From the socket to the queue: `run receiver`",
    Leg.RECORD: "From the queue to the outbox: `run ledger`",
    Leg.DELIVER: "From the outbox to the webhook: `run dispatcher`",
    Leg.INQUIRE: "An inquiry, from the inquiry queue to the outbox: `run inquirer`",
}
# What every package stands on. These files are listed below the path, and do not count as part of it.
_FOUNDATIONS = ("service/domain/", "service/contracts/", "service/config/", "service/runtime/")
_METRICS = "service/runtime/metrics/"


def files_on_path(files: Sequence[str]) -> list[str]:
    """Of the called files those that are the path itself, without what every package stands on."""
    return [name for name in files if not name.startswith(_FOUNDATIONS)]


def make_page(legs: Mapping[Leg, Sequence[str]], page: str) -> str:
    """`page` with the list that belongs between its markers."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert begin, f"{PAGE.name} lacks {_BEGIN!r}"
    assert end, f"{PAGE.name} lacks {_END!r}"
    return before + begin + "\n".join(_describe(leg, files) for leg, files in legs.items()) + end + after


def _describe(leg: Leg, files: Sequence[str]) -> str:
    path = files_on_path(files)
    foundations = [name for name in files if name not in path and not name.startswith(_METRICS)]
    metrics = [name for name in files if name.startswith(_METRICS)]
    lines = [
        f"### {_TITLES[leg]}\n",
        f"{len(path)} files:\n",
        *(f"{number}. {_link(name)}: {_purpose(name)}" for number, name in enumerate(path, 1)),
        f"\nThey use {', '.join(map(_link, foundations))}.",
        f"Metrics: {', '.join(map(_link, metrics))}.\n",
    ]
    return "\n".join(lines)


def _link(name: str) -> str:
    return f"[`{name.removeprefix('service/')}`](../{name})"


def _purpose(name: str) -> str:
    docstring = ast.get_docstring(ast.parse((_REPOSITORY / name).read_text(encoding="utf-8")))
    assert docstring, f"{name} has no docstring"
    return " ".join(docstring.partition("\n\n")[0].split())


def _run_traced(folder: str, *arguments: str) -> None:
    """Run `payment-callbacks ARGUMENTS...` in this process, with a trace in `folder`."""
    sys.argv[1:] = arguments
    CallTrace(Path(folder)).start()
    run_command()


def main() -> None:
    match sys.argv[1:]:
        case ["--trace", folder, *arguments]:
            _run_traced(folder, *arguments)
        case ["--write"]:
            PAGE.write_text(make_page(trace_callback(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        case _:
            print(json.dumps({leg.name: files for leg, files in trace_callback().items()}, indent=1))


if __name__ == "__main__":
    main()
