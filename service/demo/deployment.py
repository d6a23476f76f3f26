"""The demo's deployment: every role as a process of the real command line, in a temporary folder, on free ports."""

import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import click
import urllib3

from service.bootstrap.ledger import make_ledger_engine
from service.config.reading import load_settings
from service.ledger.schema import migrate
from service.runtime.supervisor import ChildProcess, end_processes, start_command

MERCHANT = "demo"
PAY_TYPE = "demo_001"
#: The endpoint whose events are checked.
SHOP = "shop"
#: The endpoint that fails after the run.
CRM = "crm"
#: Who may sign in to the console.
PEOPLE = ("li.lei", "han.meimei")
#: In yuan; above it, a second person has to confirm a resolution.
SECOND_PERSON_ABOVE = 50
_UA = "DEMO"
_START_SECONDS = 30.0
_GRACE_SECONDS = 15.0
_LOG_TAIL_LINES = 15


class DeploymentFailed(click.ClickException):
    """A role does not run. The message holds the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Role:
    name: str
    process: ChildProcess
    log_file: Path


class DemoDeployment:
    """Starts the roles and ends them. `settings_path` may be used by any other `payment-callbacks` command."""

    def __init__(self, *, folder: Path, shop_url: str, crm_url: str, webhook_secret: str, required_trust: str) -> None:
        sandbox_port, receiver_port, console_port = _free_ports(3)
        self.sandbox_url = f"http://127.0.0.1:{sandbox_port}"
        self.receiver_url = f"http://127.0.0.1:{receiver_port}"
        self.console_url = f"http://127.0.0.1:{console_port}"
        #: The tokens with which people sign in to the console.
        self.tokens = {person: secrets.token_urlsafe(32) for person in PEOPLE}
        self.folder = folder
        self.settings_path = folder / "payment-callbacks.toml"
        self._sandbox_settings_path = folder / "sandbox.toml"
        self._roles: list[_Role] = []
        aes_key = secrets.token_hex(8)
        self._write(
            self.settings_path,
            _SETTINGS.format(
                receiver_port=receiver_port,
                console_port=console_port,
                session_key=secrets.token_urlsafe(32),
                second_person_above=SECOND_PERSON_ABOVE,
                sandbox_url=self.sandbox_url,
                aes_key=aes_key,
                token_key=secrets.token_urlsafe(32),
                shop_url=shop_url,
                crm_url=crm_url,
                webhook_secret=webhook_secret,
                required_trust=required_trust,
                merchant=MERCHANT,
                pay_type=PAY_TYPE,
                ua=_UA,
                shop=SHOP,
                crm=CRM,
            )
            + "".join(
                _PERSON.format(name=person.replace(".", "-"), person=person, token=token)
                for person, token in self.tokens.items()
            ),
        )
        self._write(
            self._sandbox_settings_path,
            _SANDBOX.format(
                sandbox_port=sandbox_port,
                aes_key=aes_key,
                pay_type=PAY_TYPE,
                ua=_UA,
                seed=secrets.randbelow(10**6),
            ),
        )

    def start(self, *, with_console: bool) -> None:
        """Start every role and return once all of them run and the servers answer. Raises DeploymentFailed.

        Call it in the main thread: should this process be killed, the kernel ends its children with that thread.
        """
        self._start("sandbox", "sandbox", "--settings", str(self._sandbox_settings_path))
        for role in ("receiver", "ledger", "inquirer", "dispatcher", *(["console"] if with_console else [])):
            self._start(role, "--config", str(self.settings_path), "run", role)
        engine = make_ledger_engine(load_settings(self.settings_path, {}), pool_size=1)
        migrate(engine)
        engine.dispose()
        self._await("sandbox", lambda: _answers(f"{self.sandbox_url}/admin/report"))
        self._await("receiver", lambda: _answers(f"{self.receiver_url}/readyz"))
        if with_console:
            self._await("console", lambda: _answers(f"{self.console_url}/readyz"))

    def check(self) -> None:
        """Raises DeploymentFailed where a role has died."""
        for role in self._roles:
            if role.process.poll() is not None:
                raise DeploymentFailed(f"{role.name} ended with {role.process.returncode}. {_tail(role.log_file)}")

    def close(self) -> None:
        """Send SIGTERM to all processes, and SIGKILL after a grace period. Safe to call twice."""
        end_processes([role.process for role in self._roles], grace_seconds=_GRACE_SECONDS)
        self._roles.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, name: str, *arguments: str) -> None:
        log_file = self.folder / f"{name}.log"
        # These variables would override the settings, and the demo shows the embedded queue and database.
        environment = {key: value for key, value in os.environ.items() if key not in ("AMQP_URL", "DATABASE_URL")}
        with log_file.open("ab") as log:
            process = start_command(arguments, environment=environment, output=log)
        self._roles.append(_Role(name=name, process=process, log_file=log_file))

    def _await(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise DeploymentFailed(f"{name} does not answer. {_tail(self.folder / f'{name}.log')}")
            time.sleep(0.05)

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")


def _answers(url: str) -> bool:
    try:
        return urllib3.request("GET", url, retries=False, timeout=1.0).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [open_socket.getsockname()[1] for open_socket in sockets]
    for open_socket in sockets:
        open_socket.close()
    return ports


def _tail(log_file: Path) -> str:
    lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:]
    return "Its log ends with:\n" + "\n".join(f"  {line}" for line in lines) if lines else "Its log is empty."


_SETTINGS = """\
data_directory = "data"

[receiver]
bind = "127.0.0.1:{receiver_port}"
public_url = "http://127.0.0.1:{receiver_port}"

[console]
bind = "127.0.0.1:{console_port}"
public_url = "http://127.0.0.1:{console_port}"
session_keys = ["{session_key}"]

[merchants.{merchant}]
pay_types = ["{pay_type}"]
amount_unit = "yuan"
required_trust = "{required_trust}"
token_keys = [{{ kid = "k1", key = "{token_key}" }}]
second_person_above = "{second_person_above}"
# The demo should not take minutes: inquiries are made, and given up, much sooner here than in production.
answer_due_seconds = 4.0
min_inquiry_interval_seconds = 1.0
first_inquiry_repeat_seconds = 1.0
max_inquiry_repeat_seconds = 5.0
max_inquiries_per_minute = 30000
inquiry_horizon_seconds = 30.0

[merchants.{merchant}.gateway]
url = "{sandbox_url}/gateway"
ua = "{ua}"
aes_key = "{aes_key}"
not_found_messages = ["订单不存在"]
timeout_seconds = 5.0

[inquirer]
poll_seconds = 0.2

[[endpoints]]
name = "{shop}"
kind = "webhook"
url = "{shop_url}"
secrets = ["{webhook_secret}"]

[[endpoints]]
name = "{crm}"
kind = "webhook"
url = "{crm_url}"
secrets = ["{webhook_secret}"]
"""

_PERSON = """
[[api.tokens]]
name = "{name}"
person = "{person}"
token = "{token}"
scopes = ["read", "inquire", "operate", "resolve"]
"""

_SANDBOX = """\
bind = "127.0.0.1:{sandbox_port}"
fail_share = 0.2
seed = {seed}

[[accounts]]
ua = "{ua}"
aes_key = "{aes_key}"
pay_types = ["{pay_type}"]

[timing]
settle_seconds = 1.0
repeat_after_seconds = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]

[misbehaviour]
repeat_share = 0.3
delay_share = 0.2
max_delay_seconds = 2.0
reorder_share = 0.2
forge_share = 0.5
forgeries_per_order = 3
drop_share = 0.1
lie_share = 0.1
lose_answer_share = 0.05
"""
