"""The service as its README starts it: one settings file, and a process of the command line for each role.

Tokens are checked, the log goes at info to a file, metrics are on, and everything else is as it is by default.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.callbacks import MERCHANT, TOKEN_KEY, without_proxies
from tests.support.downstream import WEBHOOK_SECRET
from tests.support.processes import Process, answers, find_free_port

COMMAND = Path(sys.executable).with_name("payment-callbacks")
API_TOKEN = "the-token-of-a-system-that-calls-the-API"

_SETTINGS = """\
[receiver]
bind = "127.0.0.1:{receiver}"
metrics_bind = "127.0.0.1:{receiver_metrics}"

[ledger]
metrics_bind = "127.0.0.1:{ledger_metrics}"

[dispatcher]
metrics_bind = "127.0.0.1:{dispatcher_metrics}"

[inquirer]
metrics_bind = "127.0.0.1:{inquirer_metrics}"

[api]
bind = "127.0.0.1:{api}"
tokens = [{{ name = "shop", token = "{api_token}", scopes = ["read"] }}]

[console]
bind = "127.0.0.1:{console}"
public_url = "http://127.0.0.1:{console}"
session_keys = ["a session key for benchmarks, of 32 bytes or more"]

[merchants.{merchant}]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
token_keys = [{{ kid = "k1", key = "{token_key}" }}]
required_trust = "capability"
"""
_ENDPOINT = """
[[endpoints]]
name = "{name}"
kind = "webhook"
url = "{url}"
secrets = ["{secret}"]
"""


class Installation:
    """One settings file. Without a broker the queue is a file, without a database the ledger is one."""

    def __init__(
        self, folder: Path, *, amqp_url: str = "", database_url: str = "", endpoints: Mapping[str, str] | None = None
    ) -> None:
        """`endpoints` by name: the URLs of webhooks."""
        self.folder = folder
        self._endpoints = dict(endpoints or {})
        folder.mkdir(parents=True, exist_ok=True)
        self.settings_file = folder / "payment-callbacks.toml"
        #: Where the embedded queue is.
        self.queue_file = folder / "data" / "callbacks.sqlite3"
        self.environment = without_proxies()
        self.environment |= {"AMQP_URL": amqp_url} if amqp_url else {}
        self.environment |= {"DATABASE_URL": database_url} if database_url else {}
        ports = (
            "receiver",
            "receiver_metrics",
            "ledger_metrics",
            "dispatcher_metrics",
            "inquirer_metrics",
            "api",
            "console",
        )
        self._ports = {name: find_free_port() for name in ports}
        text = _SETTINGS.format(merchant=MERCHANT, token_key=TOKEN_KEY, api_token=API_TOKEN, **self._ports)
        for name, url in self._endpoints.items():
            text += _ENDPOINT.format(name=name, url=url, secret=WEBHOOK_SECRET)
        self.settings_file.write_text(text)

    def on(self, database_url: str, folder: Path, *, endpoints: Mapping[str, str] | None = None) -> "Installation":
        """The same with another database, from another folder, and with other endpoints where some are given."""
        return Installation(
            folder,
            amqp_url=self.environment["AMQP_URL"],
            database_url=database_url,
            endpoints=self._endpoints if endpoints is None else endpoints,
        )

    @property
    def url(self) -> str:
        """Where the receiver takes callbacks."""
        return f"http://127.0.0.1:{self._ports['receiver']}"

    @property
    def console_url(self) -> str:
        """Where people use the console."""
        return f"http://127.0.0.1:{self._ports['console']}"

    def run(self, *arguments: str) -> None:
        """Run a command that ends by itself."""
        command = [str(COMMAND), "--config", str(self.settings_file), *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"

    def process(self, role: str) -> Process:
        """A process of a role, not yet started."""
        return Process(
            name=role,
            command=[COMMAND, "--config", self.settings_file, "run", role],
            log_file=self.folder / f"{role}.log",
            environment=self.environment,
        )

    def ready(self, role: str) -> bool:
        """Whether a role's work has begun: roles that serve HTTP say so, of the others there are metrics then."""
        if role in ("receiver", "api", "console"):
            return answers(f"http://127.0.0.1:{self._ports[role]}/readyz")
        return answers(f"http://127.0.0.1:{self._ports[f'{role}_metrics']}/metrics")

    @contextmanager
    def running(self, *roles: str) -> Iterator[Sequence[Process]]:
        """Run roles, from when all of them are ready."""
        processes = [self.process(role) for role in roles]
        with all_running(*processes):
            for role, process in zip(roles, processes, strict=True):
                process.wait_until(self.ready, role)
            yield processes


@contextmanager
def all_running(*processes: Process) -> Iterator[None]:
    """Start them, and end them by SIGTERM. Fails where one has ended before, or does not end in 30 s."""
    try:
        for process in processes:
            process.start()
        yield
        for process in processes:
            assert process.running, f"ended by itself: {process.describe()}"
            process.signal(signal.SIGTERM)
        for process in processes:
            process.wait(within_seconds=30)
    finally:
        for process in processes:
            process.kill()
