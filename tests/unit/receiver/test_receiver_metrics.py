import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from service.runtime.metrics.receiver import ReceiverMetrics
from tests.support.waiting import HANGS_AFTER_SECONDS


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> ReceiverMetrics:
    return ReceiverMetrics(registry=registry, merchants=["shop"])


def test_only_configured_merchants_become_labels(metrics: ReceiverMetrics, registry: CollectorRegistry) -> None:
    for merchant in ("shop", "made-up-1", "made-up-2"):
        metrics.count_callback(merchant, outcome="refused", reason="x")
        metrics.count_dialect(merchant, "php")
    text = generate_latest(registry).decode()
    assert 'payment_callbacks_received_total{merchant="unknown",outcome="refused",reason="x",trust=""} 2.0' in text
    assert "made-up" not in text


def test_the_spools_depth_is_the_last_one_set(metrics: ReceiverMetrics, registry: CollectorRegistry) -> None:
    metrics.set_spool_depth(messages=3, size_bytes=900, oldest_at=datetime(2026, 7, 1, tzinfo=UTC))
    metrics.set_spool_depth(messages=1, size_bytes=300, oldest_at=datetime(2026, 7, 2, tzinfo=UTC))
    assert registry.get_sample_value("payment_callbacks_spool_messages") == 1
    assert registry.get_sample_value("payment_callbacks_spool_bytes") == 300
    oldest = registry.get_sample_value("payment_callbacks_spool_oldest_timestamp_seconds")
    assert oldest == datetime(2026, 7, 2, tzinfo=UTC).timestamp()


def test_an_empty_spool_has_no_oldest_callback(metrics: ReceiverMetrics, registry: CollectorRegistry) -> None:
    metrics.set_spool_depth(messages=0, size_bytes=0, oldest_at=None)
    assert registry.get_sample_value("payment_callbacks_spool_oldest_timestamp_seconds") == 0


_FORKING = """
import os, sys, urllib.request
from pathlib import Path
from service.domain.claims import Trust
from prometheus_client import CollectorRegistry
from service.runtime.metrics.exposition import expose_shared, share_between_processes
from service.runtime.metrics.receiver import ReceiverMetrics

directory, port = Path(sys.argv[1]), int(sys.argv[2])
share_between_processes(directory)
metrics = ReceiverMetrics(registry=CollectorRegistry(), merchants=["shop"])
expose_shared(directory, bind=f"127.0.0.1:{port}")
for _ in range(5):
    if not (pid := os.fork()):
        metrics.count_callback("shop", outcome="acknowledged", trust=Trust.CAPABILITY)
        os._exit(0)
    os.waitpid(pid, 0)
print(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode())
"""


def test_the_sum_over_all_processes_is_served_while_they_come_and_go(tmp_path: Path, free_port: int) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _FORKING, str(tmp_path), str(free_port)],
        capture_output=True,
        text=True,
        timeout=HANGS_AFTER_SECONDS,
        check=False,
    )
    assert (
        'payment_callbacks_received_total{merchant="shop",outcome="acknowledged",reason="",trust="capability"} 5.0'
        in done.stdout
    ), done
