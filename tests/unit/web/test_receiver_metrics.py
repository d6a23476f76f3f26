import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from service.metrics import ReceiverMetrics


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def metrics(registry):
    return ReceiverMetrics(registry=registry, merchants=["shop"])


def test_only_configured_merchants_become_labels(metrics, registry):
    for merchant in ("shop", "made-up-1", "made-up-2"):
        metrics.count_callback(merchant, outcome="refused", reason="x")
        metrics.count_dialect(merchant, "php")
    text = generate_latest(registry).decode()
    assert 'payment_callbacks_received_total{merchant="unknown",outcome="refused",reason="x"} 2.0' in text
    assert "made-up" not in text


def test_the_spools_depth_is_the_last_one_told(metrics, registry):
    metrics.set_spool_depth(messages=3, size_bytes=900)
    metrics.set_spool_depth(messages=1, size_bytes=300)
    assert registry.get_sample_value("payment_callbacks_spool_messages") == 1
    assert registry.get_sample_value("payment_callbacks_spool_bytes") == 300


_FORKING = """
import os, sys, urllib.request
from pathlib import Path
from prometheus_client import CollectorRegistry
from service.metrics import ReceiverMetrics, expose_shared, share_between_processes

directory, port = Path(sys.argv[1]), int(sys.argv[2])
share_between_processes(directory)
metrics = ReceiverMetrics(registry=CollectorRegistry(), merchants=["shop"])
expose_shared(directory, host="127.0.0.1", port=port)
for _ in range(5):
    if not (pid := os.fork()):
        metrics.count_callback("shop", outcome="acknowledged")
        os._exit(0)
    os.waitpid(pid, 0)
print(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode())
"""


def test_the_sum_over_all_processes_is_served_while_they_come_and_go(tmp_path, free_port):
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _FORKING, str(tmp_path), str(free_port)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert 'payment_callbacks_received_total{merchant="shop",outcome="acknowledged",reason=""} 5.0' in done.stdout, done
