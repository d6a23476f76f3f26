"""Three RabbitMQ nodes on three hosts, each a network namespace with a link of its own that can be cut. Needs root."""

import fcntl
import json
import secrets
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.rabbitmq import Host, RabbitMQ
from tests.support.waiting import eventually

# A network for documentation (RFC 5737): nobody's, and it leads nowhere but to the bridge below.
_NETWORK = "198.51.100"
_BRIDGE = "pc-bridge"
_NODES = 3

# `net_ticktime` is in seconds; a node that hears nothing of another for as long takes it for gone.
_SETTINGS = """\
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
        self.nodes = [RabbitMQ(host=host, more_settings=_SETTINGS + peers, cookie=cookie) for host in hosts]
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
