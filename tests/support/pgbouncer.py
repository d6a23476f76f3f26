"""A private PgBouncer that pools by transaction, from Debian's package but not as its service."""

import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import psycopg

from tests.support.ports import find_free_port
from tests.support.processes import Process

_PROGRAM = Path("/usr/sbin/pgbouncer")

#: Sessions that its clients share.
POOL_SIZE = 4

# Fewer sessions than clients, so that they have one after the other. No start-up parameter is let pass that PgBouncer
# does not know, as is its default.
_SETTINGS = """\
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
        settings.write_text(_SETTINGS.format(server_port=server_port, port=self.port, users=users, pool_size=POOL_SIZE))
        if os.geteuid() == 0:
            for path in (self._folder, settings, users):
                shutil.chown(path, "postgres", "postgres")
        self._server = Process(
            name="pgbouncer",
            command=[*_as_unprivileged_user(), _PROGRAM, settings],
            log_file=self._folder / "server.log",
            directory=self._folder,
        )

    def __enter__(self) -> Self:
        assert _PROGRAM.exists(), "PgBouncer is not installed: `make test` as root does it, or says how"
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


def _as_unprivileged_user() -> list[str]:
    """PgBouncer refuses to run as root. Changing the user clears the death signal, so it is set again."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--pdeathsig=KILL"]
