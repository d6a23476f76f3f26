"""Metrics of processes that share a folder, where the folder's disk is full. As root, which can mount such a disk."""

import os
import sys
from pathlib import Path

import pytest

from tests.support.processes import Processes

_COUNTS = """
import sys
from pathlib import Path
from prometheus_client import CollectorRegistry, Counter, generate_latest
from service.runtime.metrics.exposition import share_between_processes

share_between_processes(Path(sys.argv[1]))
counters = [Counter(f"c{number}", "", ["label"], registry=CollectorRegistry()) for number in range(2)]
labels = [str(number) for number in range(2_000)]
for _ in range(3):
    for counter in counters:
        for label in labels:
            counter.labels(label).inc()
print({counter.labels(label)._value.get() for counter in counters for label in labels})
"""


@pytest.mark.parametrize("size", ["16k", "100k"], ids=["for the first file", "for it to grow"])
def test_counting_goes_on_where_there_is_no_room(processes: Processes, tmp_path: Path, size: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount the small disk that this test fills")
    mount = f'mount -t tmpfs -o size={size} tmpfs "$1" && exec "$2" -c "$3" "$1"'
    counting = processes.start_command("unshare", "--mount", "sh", "-c", mount, "sh", tmp_path, sys.executable, _COUNTS)
    assert counting.wait() == 0, counting.describe()
    assert counting.output.splitlines()[-1] == "{3.0}"
    assert counting.output.count("metrics_incomplete") == 1
