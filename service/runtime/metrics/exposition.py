"""Exposition: how Prometheus reads a role's metrics, on a port of its own, from one process or several."""

import os
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from threading import Lock

from prometheus_client import CollectorRegistry, Gauge, Metric, start_http_server, values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from service.runtime.logs import Logger

_log = Logger(__name__)

# The library begins with a file of 64 KiB and doubles it. A value takes its key and less than this.
_FIRST_FILE_BYTES = 1 << 16
_VALUE_BYTES = 64


def name_role(registry: CollectorRegistry, role: str) -> None:
    """Show the role and its release, so that a missing role can be noticed."""
    info = Gauge(
        "payment_callbacks_build_info",
        "Always 1: the role, and the release that it runs.",
        ["role", "version"],
        registry=registry,
        multiprocess_mode="max",
    )
    info.labels(role, version("payment-callbacks")).set(1)


def expose(registry: CollectorRegistry, *, bind: str) -> None:
    """Serve a registry's metrics at host:port, on a daemon thread. Raises OSError where the port is taken."""
    host, port = _split(bind)
    start_http_server(port, host, registry)


def share_between_processes(directory: Path) -> None:
    """Keep the values of all metrics made from now on in files in `directory`, one set per process.

    For a master that forks workers: call it in the master, before any metric is made.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    # The library reads the environment when it is imported, and may be imported already.
    values.ValueClass = values.MultiProcessValue(_ProcessId())  # type: ignore[no-untyped-call]
    if sys.platform == "linux":
        values.MmapedDict = _AllocatedValues  # type: ignore[attr-defined]


def forget_process(pid: int, directory: Path) -> None:
    """Remove the gauges of a process that has ended; its counters stay in the sums."""
    mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]


def expose_shared(directory: Path, *more: Collector, bind: str) -> None:
    """Serve the sums over all processes that share `directory`, and `more`, on a daemon thread of this process.

    The process may go on forking: a fork waits for the end of a scrape. Raises OSError where the port is taken.
    """
    registry = CollectorRegistry()
    collector = MultiProcessCollector(None, str(directory))  # type: ignore[no-untyped-call]
    registry.register(_BetweenForks(collector))
    for one in more:
        registry.register(one)
    host, port = _split(bind)
    start_http_server(port, host, registry)


def _split(bind: str) -> tuple[str, int]:
    host, _, port = bind.rpartition(":")
    return host.strip("[]"), int(port)


class _AllocatedValues(MmapedDict):
    """One file of a process's values. All of it has room on the disk before it is written to.

    The library only sets the file's length. Where a disk or `/dev/shm` is full, the kernel then ends the process with
    SIGBUS at its next new value. Here, values without room are in memory that the scraped process does not see.
    """

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        try:
            with open(filename, "ab") as file:
                os.posix_fallocate(file.fileno(), 0, max(_FIRST_FILE_BYTES, file.tell()))
        except OSError as error:
            _warn_of_lost_values(filename, error)
            Path(filename).unlink(missing_ok=True)  # an empty file cannot be read
            filename = f"/proc/self/fd/{os.memfd_create('metrics')}"
        super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        if self._used + len(key.encode()) + _VALUE_BYTES > self._capacity:
            try:
                os.posix_fallocate(self._f.fileno(), 0, 2 * self._capacity)
            except OSError as error:
                _warn_of_lost_values(self._fname, error)
                self._f = open(os.memfd_create("metrics"), "r+b")  # noqa: SIM115 - closed with the dictionary
                self._f.write(self._m[:])
        super()._init_value(key)  # type: ignore[no-untyped-call]


def _warn_of_lost_values(file: str, error: OSError) -> None:
    _log.error("metrics_incomplete", file=file, reason=f"{error.strerror}: make room there, then restart the receiver")


class _ProcessId:
    """`os.getpid`, called once per process: every increment of a counter asks for it, 9 % of a callback's cost."""

    def __init__(self) -> None:
        self._read()
        os.register_at_fork(after_in_child=self._read)

    def __call__(self) -> int:
        return self._pid

    def _read(self) -> None:
        self._pid = os.getpid()


class _BetweenForks(Collector):
    """Collects while no fork is under way: a child must not inherit the half-done work of a scraping thread."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._lock = Lock()
        os.register_at_fork(
            before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._lock.release
        )

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            return list(self._collector.collect())
