"""A private RabbitMQ, from Debian's package but not as its service: one broker, or a cluster of three."""

import fcntl
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.disks import Disk
from tests.support.processes import Process, find_free_port
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

# The package's own scripts: those in /usr/sbin change to the user `rabbitmq` and read the system's settings.
_SCRIPTS = Path("/usr/lib/rabbitmq/bin")

_MEMORY_BYTES = 1_000_000_000

_SETTINGS = f"""\
loopback_users.guest = true
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.absolute = {_MEMORY_BYTES}
raft.wal_max_size_bytes = 33554432
log.file = false
log.console = true
log.console.level = warning
"""

# On hosts of their own all have the same one: the nodes of a cluster find each other by it.
_EPMD_PORT = "4369"

_WRITE_DOWN_QUEUES = "[ok = dets:sync(Table) || Table <- dets:all()]."


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Where a broker runs."""

    address: str
    #: What a command is begun with to run there, for a host that is a network namespace of its own.
    inside: Sequence[str] = ()

    @property
    def node_name(self) -> str:
        """What the broker there is called."""
        return f"rabbit@{self.address if self.inside else 'localhost'}"


class RabbitMQ:
    """One broker with ports, folder, cookie and epmd of its own, so that any number of them run side by side.

    Started on entering the context, gone without trace on leaving it. Between the two it may be stopped, killed and
    started again: it keeps its port and what it has on disk.
    """

    def __init__(
        self, *, host: Host | None = None, more_settings: str = "", cookie: str = "", disk: Disk | None = None
    ) -> None:
        """`more_settings` are further lines of rabbitmq.conf; nodes of one cluster share a `cookie`.

        Its data are on `disk`, if it is given one.
        """
        self.port = find_free_port()
        self._host = host or Host(address="127.0.0.1")
        self._folder = Path(tempfile.mkdtemp(prefix="payment-callbacks-rabbitmq-"))
        self._disk = disk
        self._environment = self._prepare(more_settings, cookie)
        self._epmd = Process(
            name="epmd",
            command=[*self._host.inside, _installed("epmd"), "-port", self._environment["ERL_EPMD_PORT"]],
            log_file=self._folder / "epmd.log",
            environment=self._environment,
        )
        self._server = Process(
            name="rabbitmq",
            command=[*self._host.inside, _SCRIPTS / "rabbitmq-server"],
            log_file=self._folder / "server.log",
            environment=self._environment,
            directory=self._folder,
        )
        self._virtual_hosts_made = 0

    def __enter__(self) -> Self:
        try:
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
    def url(self) -> str:
        """The AMQP URL of the default virtual host."""
        return self._url("%2F")

    @property
    def running(self) -> bool:
        """Whether the broker's process lives."""
        return self._server.running

    def describe(self) -> str:
        """The end of the broker's log (warnings and errors), for the report of a failed test."""
        return self._server.describe()

    def start(self) -> None:
        """Start it, and return once it answers AMQP."""
        self.begin()
        self.wait_until_answering()

    def begin(self) -> None:
        """Start it, and return at once: the first nodes of a cluster wait for one another."""
        assert _SCRIPTS.is_dir(), "rabbitmq-server is not installed: `make test` as root does it, or says how"
        if not self._epmd.running:
            self._epmd.start()
        self._server.start()

    def wait_until_answering(self) -> None:
        """Return once it answers AMQP."""
        self._server.wait_until(self._answers)

    def stop(self) -> None:
        """Shut it down in good order."""
        self._server.terminate()

    def kill(self) -> None:
        """Kill it with SIGKILL, as the kernel does when memory runs out.

        Its queues are written down first: RabbitMQ does that only every half second for quorum queues,
        and one declared just before the kill would come back without a leader, for ever.
        """
        self.evaluate(_WRITE_DOWN_QUEUES)
        self._server.kill()

    def keep_queues(self) -> None:
        """Let its disk keep the queues that were declared. RabbitMQ does not sync that; the kernel does, later."""
        assert self._disk is not None, "it has no disk of its own"
        self.evaluate(_WRITE_DOWN_QUEUES)
        self._disk.sync()

    def cut_power(self) -> None:
        """Lose all that has not reached its disk, and end it. So may the queues be, without `keep_queues`."""
        assert self._disk is not None, "it has no disk of its own"
        self.freeze()
        self._disk.cut_power(self._server.kill)

    def restart(self) -> None:
        """Stop it in good order and start it again."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop it with its connections open (SIGSTOP): what a hung host looks like."""
        self._server.freeze()

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        self._server.thaw()

    def block_publishers(self) -> None:
        """Raise the memory alarm: from now on the broker reads nothing from connections that publish."""
        self.evaluate(f"{_limit_memory(limit_bytes=1)}.")

    def unblock_publishers(self) -> None:
        """End the alarm that `block_publishers` raised."""
        self.evaluate(f"{_limit_memory(limit_bytes=_MEMORY_BYTES)}.")

    def kill_connections(self) -> None:
        """End every connection without a word, as the end of its client's machine does."""
        self.evaluate("[exit(Pid, kill) || Pid <- rabbit_networking:connections()].")

    def limit_holding(self, *, seconds: float) -> None:
        """Take messages back that are held unsettled for longer, until `clear`: `consumer_timeout`, else half an hour.

        Only from channels that are opened from now on.
        """
        self.evaluate(f"{_limit_holding(timeout_ms=int(seconds * 1000), look_every_ms=100)}.")

    def evaluate(self, expressions: str) -> str:
        """Evaluate Erlang there and return the value of the last expression; an AssertionError where it failed.

        With erl_call, in milliseconds: `rabbitmqctl eval` starts an Erlang of its own, which takes a second.
        """
        cookie = (self._folder / ".erlang.cookie").read_text()
        name = ["-name" if self._host.inside else "-sname", self._host.node_name]
        answer = self._run(_installed("erl_call"), *name, "-c", cookie, "-e", given=expressions + "\n")
        assert answer.startswith("{ok, "), f"{expressions} failed:\n{answer}"
        return answer.removeprefix("{ok, ").removesuffix("}")

    def ctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl` (about a second) and return what it wrote; an AssertionError where it failed."""
        return self._run(_SCRIPTS / "rabbitmqctl", "--quiet", *arguments)

    def clear(self) -> None:
        """Forget every queue, exchange and message of the default virtual host, and any limit; ends its connections."""
        forget = f'rabbit_vhost:delete(<<"/">>, <<"tests">>), {_make_virtual_host("/")}'
        patient = _limit_holding(timeout_ms=1_800_000, look_every_ms=60_000)
        self.evaluate(f"{forget}, {_limit_memory(limit_bytes=_MEMORY_BYTES)}, {patient}.")

    def create_virtual_host(self) -> str:
        """The AMQP URL of a new, empty virtual host."""
        self._virtual_hosts_made += 1
        name = f"test-{self._virtual_hosts_made}"
        self.evaluate(_make_virtual_host(name) + ".")
        return self._url(name)

    def _url(self, virtual_host: str) -> str:
        return f"amqp://guest:guest@{self._host.address}:{self.port}/{virtual_host}"

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self._host.address, self.port), timeout=2) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return connection.recv(1) == b"\x01"  # the first byte of Connection.Start's frame
        except OSError:
            return False

    def _run(self, *command: str | Path, given: str = "") -> str:
        done = subprocess.run(
            [*self._host.inside, *command],
            env=self._environment,
            cwd=self._folder,
            input=given,
            capture_output=True,
            text=True,
            timeout=HANGS_AFTER_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{command} failed:\n{done.stdout}{done.stderr}"
        return done.stdout

    def _prepare(self, more_settings: str, cookie: str) -> dict[str, str]:
        settings = self._folder / "rabbitmq.conf"
        settings.write_text(_SETTINGS + more_settings)
        if cookie:
            cookie_file = self._folder / ".erlang.cookie"
            cookie_file.write_text(cookie)
            cookie_file.chmod(0o400)
        plugins = self._folder / "enabled_plugins"
        plugins.write_text("[].\n")
        foreign = ("RABBITMQ_", "ERL_")
        return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | {
            "HOME": str(self._folder),  # where Erlang makes and finds the cookie
            # An epmd of its own: a shared one would be started by the first broker and outlive it.
            "ERL_EPMD_PORT": _EPMD_PORT if self._host.inside else str(find_free_port()),
            "ERL_EPMD_ADDRESS": self._host.address,
            "RABBITMQ_NODENAME": self._host.node_name,
            "RABBITMQ_USE_LONGNAME": "true" if self._host.inside else "false",
            "RABBITMQ_NODE_IP_ADDRESS": self._host.address,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(find_free_port()),
            "RABBITMQ_MNESIA_BASE": str((self._disk.path if self._disk else self._folder) / "data"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(settings),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            # The script becomes the broker, where it would else stay its parent: signals then reach it.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _remove(self) -> None:
        self._server.kill()
        self._epmd.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def _installed(program: str) -> str:
    found = shutil.which(program)
    assert found is not None, f"{program} is not installed: `make test` as root does it, or says how"
    return found


def _limit_memory(*, limit_bytes: int) -> str:
    """Erlang that sets the amount of memory from which on publishers are blocked."""
    return f"vm_memory_monitor:set_vm_memory_high_watermark({{absolute, {limit_bytes}}})"


def _limit_holding(*, timeout_ms: int, look_every_ms: int) -> str:
    """Erlang that sets how long a message may stay unsettled."""
    return (
        f"application:set_env(rabbit, consumer_timeout, {timeout_ms}), "
        f"application:set_env(rabbit, channel_tick_interval, {look_every_ms})"
    )


def _make_virtual_host(name: str) -> str:
    """Erlang that makes it, and lets the user `guest` in."""
    return f"""
        rabbit_vhost:add(<<"{name}">>, <<"tests">>),
        rabbit_auth_backend_internal:set_permissions(
            <<"guest">>, <<"{name}">>, <<".*">>, <<".*">>, <<".*">>, <<"tests">>
        )"""


# A network for documentation (RFC 5737): nobody's, and it leads nowhere but to the bridge below.
_NETWORK = "198.51.100"
_BRIDGE = "pc-bridge"
_NODES = 3

# `net_ticktime` is in seconds; a node that hears nothing of another for as long takes it for gone.
_CLUSTER_SETTINGS = """\
cluster_formation.peer_discovery_backend = classic_config
cluster_partition_handling = pause_minority
net_ticktime = 8
loopback_users = none
"""


class RabbitMQCluster:
    """A cluster that outlives the loss of any one node. Use it as a context manager.

    There is one at a time on a machine: a second one waits for the first one's network to go.
    """

    def __init__(self) -> None:
        cookie = secrets.token_hex(16).upper()
        hosts = [
            Host(address=f"{_NETWORK}.{10 + number}", inside=("ip", "netns", "exec", _namespace(number)))
            for number in range(_NODES)
        ]
        peers = "".join(
            f"cluster_formation.classic_config.nodes.{number} = {host.node_name}\n"
            for number, host in enumerate(hosts, start=1)
        )
        self._hosts = hosts
        #: By number, 0 to 2.
        self.nodes = [RabbitMQ(host=host, more_settings=_CLUSTER_SETTINGS + peers, cookie=cookie) for host in hosts]
        self._held = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as held:
            lock = held.enter_context((Path(tempfile.gettempdir()) / "payment-callbacks-cluster.lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            _remove_network()  # what a killed run has left
            held.callback(_remove_network)
            _make_network(self._hosts)
            for node in self.nodes:
                held.push(node)
                node.begin()
            for node in self.nodes:
                node.wait_until_answering()
            eventually(self._complete)
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def create_virtual_host(self) -> str:
        """A new, empty virtual host: its URLs at all nodes, as `AMQP_URL` takes them."""
        url = self.nodes[0].create_virtual_host()
        name = url.rpartition("/")[2]
        return ",".join(f"{node.url.rpartition('/')[0]}/{name}" for node in self.nodes)

    def kill(self, number: int) -> None:
        """SIGKILL to one node."""
        self.nodes[number].kill()

    def start_again(self, number: int) -> None:
        """Start a node that was killed, and wait until all nodes are one cluster again."""
        self.nodes[number].start()
        eventually(self._complete)

    def cut_off(self, number: int) -> None:
        """Cut one node's link: neither the other nodes nor any client hear of it, and no connection is closed."""
        _ip("link", "set", _link(number), "down")

    def join_again(self, number: int) -> None:
        """Put its link back, and wait until all nodes are one cluster again."""
        _ip("link", "set", _link(number), "up")
        try:
            eventually(self._complete)
        except AssertionError:
            # A partition that ends while only one side has found it does not heal; the operator restarts that node.
            self.kill(number)
            self.start_again(number)

    def describe(self) -> str:
        """The end of every node's log."""
        return "\n\n".join(node.describe() for node in self.nodes)

    def _complete(self) -> bool:
        names = {host.node_name for host in self._hosts}
        running = [
            json.loads(node.ctl("cluster_status", "--formatter", "json"))["running_nodes"] for node in self.nodes
        ]
        return all(names == set(found) for found in running)


def _namespace(number: int) -> str:
    return f"pc-rabbit-{number}"


def _link(number: int) -> str:
    """The bridge's end of a node's link."""
    return f"pc-link-{number}"


def _make_network(hosts: Sequence[Host]) -> None:
    _ip("link", "add", _BRIDGE, "type", "bridge")
    _ip("address", "add", f"{_NETWORK}.1/24", "dev", _BRIDGE)
    _ip("link", "set", _BRIDGE, "up")
    for number, host in enumerate(hosts):
        name = _namespace(number)
        _ip("netns", "add", name)
        _ip("link", "add", _link(number), "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", _link(number), "master", _BRIDGE, "up")
        _ip("-netns", name, "link", "set", "lo", "up")
        _ip("-netns", name, "address", "add", f"{host.address}/24", "dev", "eth0")
        _ip("-netns", name, "link", "set", "eth0", "up")


def _remove_network() -> None:
    for number in range(_NODES):
        _ip("netns", "delete", _namespace(number), check=False)
        _ip("link", "delete", _link(number), check=False)
    _ip("link", "delete", _BRIDGE, check=False)


def _ip(*arguments: str, check: bool = True) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"ip {' '.join(arguments)}: {done.stderr}"
