"""Whether traces are on, and what they cost while they are off. tests/e2e/test_traces.py shows them in use."""

import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.runtime.tracing import NO_TRACING, RABBITMQ, Tracing, TracingUnusable, tracing_factory

_TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
_ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


@pytest.fixture(autouse=True)
def _nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenTelemetry reads these itself."""
    for name, value in {**_ENDPOINT, "OTEL_EXPORTER_OTLP_TIMEOUT": "0.1"}.items():
        monkeypatch.setenv(name, value)


def make(environment: dict[str, str]) -> Tracing:
    return tracing_factory(environment, role="ledger", queue_system=RABBITMQ)()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SERVICE_NAME": "payments"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {**_ENDPOINT, "OTEL_SDK_DISABLED": "true"},
        {**_ENDPOINT, "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:9"},
    ],
)
def test_traces_are_off_unless_a_variable_names_where_they_go(environment: dict[str, str]) -> None:
    assert not make(environment).on


@pytest.mark.parametrize(
    "environment",
    [
        _ENDPOINT,
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces"},
        {"OTEL_TRACES_EXPORTER": "otlp"},
        {**_ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
        {
            **_ENDPOINT,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        },
    ],
)
def test_traces_are_on_where_the_standard_variables_ask_for_them(environment: dict[str, str]) -> None:
    tracing = make(environment)
    assert tracing.on
    tracing.close()
    tracing.close()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
    ],
)
def test_what_cannot_be_done_is_refused_at_the_start(variable: str, value: str) -> None:
    with pytest.raises(TracingUnusable, match=f"{variable} is '{value}': only|{variable} is '{value}': traces"):
        make({**_ENDPOINT, variable: value})


def test_what_opentelemetry_refuses_is_refused_at_the_start_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096")  # more than the queue holds
    with pytest.raises(TracingUnusable, match=r"the OTEL_\* variables cannot be used: max_export_batch_size"):
        make(_ENDPOINT)


def test_without_the_extra_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(TracingUnusable, match=r"pip install 'payment-callbacks\[otel\]'"):
        make(_ENDPOINT)


def test_while_traces_are_off_a_span_passes_on_the_traceparent_that_it_was_given() -> None:
    url = urlsplit("http://127.0.0.1/")
    for given in (_TRACEPARENT, None):
        with NO_TRACING.process("queue", [given]) as (processed,):
            assert processed.traceparent == given
        assert NO_TRACING.call(url, given).traceparent == given
        assert NO_TRACING.publish("exchange", given).traceparent == given
    for begins in (NO_TRACING.inquire, lambda given: NO_TRACING.serve("POST", "/", given)):
        assert begins(_TRACEPARENT).traceparent == _TRACEPARENT
        assert begins(None).traceparent


def test_a_span_ends_once_and_can_be_used_after_its_end() -> None:
    tracing = make(_ENDPOINT)
    try:
        with tracing.serve("POST", "/", _TRACEPARENT) as span:
            span.end(status=200)
            span.set("payment.merchant", "acme")
        span.end(error=ValueError("late"))
    finally:
        tracing.close()


def test_a_call_is_a_child_of_the_span_of_its_thread() -> None:
    tracing = make(_ENDPOINT)
    url = urlsplit("http://127.0.0.1/")
    try:
        with tracing.serve("POST", "/", _TRACEPARENT) as span:
            assert span.traceparent is not None
            trace_id = span.traceparent.split("-")[1]
            assert (tracing.call(url).traceparent or "").split("-")[1] == trace_id
        assert (tracing.call(url).traceparent or "").split("-")[1] != trace_id
    finally:
        tracing.close()


class Kept:
    """Tracing that keeps its spans."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(provider, queue_system=RABBITMQ)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()


def test_a_batch_that_is_not_recorded_fails_with_all_its_messages_and_tells_only_the_kind_of_error() -> None:
    kept = Kept()
    with pytest.raises(ValueError, match="6222021234567890128"), kept.tracing.process("queue", [_TRACEPARENT, None]):
        raise ValueError("6222021234567890128")
    assert len(kept.spans) == 3
    for span in kept.spans:
        assert span.attributes is not None
        assert (span.status.is_ok, span.status.description, span.events) == (False, None, ())
        assert span.attributes["error.type"] == "ValueError"


def test_a_batch_of_which_no_trace_is_sampled_has_no_span() -> None:
    kept = Kept()
    with kept.tracing.process("queue", [_TRACEPARENT.removesuffix("01") + "00"]) as (span,):
        assert (span.traceparent or "").endswith("-00")
    assert kept.spans == ()


@pytest.mark.parametrize(
    ("status", "server_fails", "client_fails"), [(200, False, False), (404, False, True), (503, True, True)]
)
def test_a_clients_mistake_is_no_failure_of_the_server(status: int, server_fails: bool, client_fails: bool) -> None:
    kept = Kept()
    kept.tracing.serve("POST", "/", None).end(status=status)
    kept.tracing.call(urlsplit("https://127.0.0.1/a-secret?token=secret")).end(status=status)
    assert [not span.status.is_ok for span in kept.spans] == [server_fails, client_fails]
    assert "secret" not in "".join(span.to_json() for span in kept.spans)
