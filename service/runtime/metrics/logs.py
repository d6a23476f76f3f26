"""Metrics of a role's log."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector


class LogMetrics(Collector):
    """Lines that the log lost, and lines with escaped characters. Safe to use from many threads."""

    def __init__(self, *, lost: Callable[[], Mapping[str, int]], escaped: Callable[[], int]) -> None:
        """`lost` gives the lines so far by reason, `escaped` their number, both for all processes of the role."""
        self._lost = lost
        self._escaped = escaped

    def collect(self) -> Iterable[Metric]:
        """Both counters."""
        lost = CounterMetricFamily(
            "payment_callbacks_log_lines_lost",
            "Log lines that were not written, or not in full: the buffer was full, the stream could not be written, or "
            "a line could not be rendered.",
            labels=["reason"],
        )
        for reason, lines in self._lost().items():
            lost.add_metric([reason], lines)
        yield lost
        yield CounterMetricFamily(
            "payment_callbacks_log_lines_escaped",
            "Log lines with characters that UTF-8 lacks, written as escapes.",
            value=self._escaped(),
        )
