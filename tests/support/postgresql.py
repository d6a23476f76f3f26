"""A private PostgreSQL, and a private PgBouncer in front of it, from Debian's packages but not as their services."""

import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import psycopg

from tests.support.disks import Disk
from tests.support.processes import Process, find_free_port
from tests.support.waiting import HANGS_AFTER_SECONDS

_INSTALLED = Path("/usr/lib/postgresql")

# Nothing here outlives the tests, so nothing needs to outlive a power cut. A killed server still recovers: what it had
# written is in the kernel's hands.
_FAST = {"fsync": "off", "full_page_writes": "off"}


class PostgreSQL:
    """One cluster with a port and a folder of its own, so that any number of them run side by side.

    Started on entering the context, gone without trace on leaving it. Between the two it may be stopped, killed and
    started again: it keeps its port and its databases.
    """

    def __init__(self, *, durable: bool = False, disk: Disk | None = None) -> None:
        """Its data are on `disk`, if it is given one; then let it be `durable`."""
        self.port = find_free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="payment-callbacks-postgresql-"))
        self._disk = disk
        self._data = (disk.path if disk else self._folder) / "data"
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "dynamic_shared_memory_type": "mmap",  # in the folder: the default leaves segments behind a killed server
            "timezone": "UTC",
            **({} if durable else _FAST),
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._server = Process(
            name="postgresql",
            command=[*_as_unprivileged_user(), _programs() / "postgres", "-D", self._data, *options],
            log_file=self._folder / "server.log",
            environment=_environment(),
            directory=self._folder,
        )
        self._databases_made = 0

    def __enter__(self) -> Self:
        try:
            self._initialise()
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    @property
    def running(self) -> bool:
        """Whether the server's process lives."""
        return self._server.running

    def describe(self) -> str:
        """The end of the server's log, for the report of a failed test."""
        return self._server.describe()

    def start(self) -> None:
        """Start it, and return once it takes connections."""
        self._server.start()
        self._server.wait_until(self._answers)

    def stop(self) -> None:
        """Shut it down at once but in good order: open transactions are rolled back (a "fast" shutdown)."""
        self._server.signal(signal.SIGINT)
        self._server.wait()

    def kill(self) -> None:
        """End all its processes with SIGKILL; the next start recovers from its log."""
        self._server.kill()

    def freeze(self) -> None:
        """Stop all its processes with their connections open (SIGSTOP): what a hung host looks like."""
        self._server.freeze()

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        self._server.thaw()

    def cut_power(self) -> None:
        """Lose all that has not reached its disk, and end it."""
        assert self._disk is not None, "it has no disk of its own"
        self.freeze()
        self._disk.cut_power(self.kill)

    def create_database(self, *, template: str = "template1") -> str:
        """Make a new database, a copy of the one that is called `template`, and return its SQLAlchemy URL."""
        self._databases_made += 1
        name = f"test_{self._databases_made}"
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{name}"

    def _dsn(self, database: str) -> str:
        return f"host=127.0.0.1 port={self.port} user=postgres dbname={database} connect_timeout=5"

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._dsn("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    def _initialise(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
        initdb = [*_as_unprivileged_user(), str(_programs() / "initdb"), "-D", str(self._data)]
        initdb += ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
        done = subprocess.run(
            initdb,
            env=_environment(),
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=HANGS_AFTER_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"initdb failed:\n{done.stdout}{done.stderr}"
        if self._disk is not None:
            self._disk.sync()

    def _remove(self) -> None:
        if self._server.running:
            self._server.thaw()
            self._server.signal(signal.SIGQUIT)  # an "immediate" shutdown; SIGKILL would leak its shared memory
            self._server.wait()
        self._server.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """An empty database, and the cluster it lives in."""

    #: For SQLAlchemy.
    url: str
    cluster: PostgreSQL

    def start(self) -> None:
        """Start the whole cluster again."""
        self.cluster.start()

    def stop(self) -> None:
        """Shut the whole cluster down in good order."""
        self.cluster.stop()

    def kill(self) -> None:
        """Kill the whole cluster."""
        self.cluster.kill()

    def cut_power(self) -> None:
        """Lose all that has not reached the disk of the cluster, and end it."""
        self.cluster.cut_power()

    def freeze(self) -> None:
        """Make the whole cluster hang, with its connections open."""
        self.cluster.freeze()

    def thaw(self) -> None:
        """Let the whole cluster go on after `freeze`."""
        self.cluster.thaw()


def _programs() -> Path:
    """The newest installed version's programs."""
    versions = [folder for folder in _INSTALLED.glob("*") if (folder / "bin" / "postgres").exists()]
    assert versions, "PostgreSQL is not installed: `make test` as root does it, or says how"
    return max(versions, key=lambda folder: int(folder.name)) / "bin"


def _as_unprivileged_user() -> list[str]:
    """Neither server runs as root. Changing the user clears the death signal, so it is set again."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--pdeathsig=KILL"]


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


_PGBOUNCER = Path("/usr/sbin/pgbouncer")

#: Sessions that its clients share.
POOL_SIZE = 4

# Fewer sessions than clients, so that they have one after the other. No start-up parameter is let pass that PgBouncer
# does not know, as is its default.
_PGBOUNCER_SETTINGS = """\
[databases]
* = host=127.0.0.1 port={server_port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
admin_users = postgres
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 500
"""


class PgBouncer:
    """A pooler in front of one PostgreSQL, on its own port. Started on entering the context, gone on leaving it."""

    def __init__(self, *, server_port: int) -> None:
        self.port = find_free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="payment-callbacks-pgbouncer-"))
        settings, users = self._folder / "pgbouncer.ini", self._folder / "users"
        users.write_text('"postgres" ""\n')
        settings.write_text(
            _PGBOUNCER_SETTINGS.format(server_port=server_port, port=self.port, users=users, pool_size=POOL_SIZE)
        )
        if os.geteuid() == 0:
            for path in (self._folder, settings, users):
                shutil.chown(path, "postgres", "postgres")
        self._server = Process(
            name="pgbouncer",
            command=[*_as_unprivileged_user(), _PGBOUNCER, settings],
            log_file=self._folder / "server.log",
            directory=self._folder,
        )

    def __enter__(self) -> Self:
        assert _PGBOUNCER.exists(), "PgBouncer is not installed: `make test` as root does it, or says how"
        try:
            self._server.start()
            self._server.wait_until(self._answers)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def url_of(self, url: str) -> str:
        """The way through the pooler to the database that `url` names directly."""
        return f"postgresql://postgres@127.0.0.1:{self.port}{urlsplit(url).path}"

    def describe(self) -> str:
        """The end of its log, for the report of a failed test."""
        return self._server.describe()

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url_of("postgresql:///pgbouncer"), autocommit=True).close()
        except psycopg.OperationalError:
            return False
        return True

    def _remove(self) -> None:
        self._server.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
