"""Traces: spans as OpenTelemetry names them, sent to a collector over OTLP. Off unless OTEL_* variables ask for them.

Names and attributes follow the semantic conventions for HTTP and for messaging
(https://opentelemetry.io/docs/specs/semconv/). What follows none of them begins with `payment.`.

While traces are off nothing of OpenTelemetry is imported, and a span only passes on the traceparent that it was given.

No attribute holds personal data or a secret: no order number, no URL, path or address of a caller, and no text of a
request, an answer or an error. So the required `url.full` and `url.path` are left out: they may contain tokens.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Self
from urllib.parse import SplitResult

from service.runtime.logs import Logger
from service.runtime.traceparent import new_traceparent, parse_traceparent

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

    _Attributes = Mapping[str, str | int]

#: `messaging.system` of RabbitMQ, and of the embedded queue, which the conventions do not know.
RABBITMQ = "rabbitmq"
EMBEDDED = "sqlite"

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
# Any other is `_OTHER`: a stranger's word must not become an attribute.
_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
# From this status on, a response is an error of the server that sent it, or a failure for the client that got it.
_SERVER_ERROR, _CLIENT_ERROR = 500, 400
#: How long a process that ends waits for its last spans to be sent.
_CLOSE_SECONDS = 2.0

_log = Logger(__name__)


class TracingUnusable(Exception):
    """The OTEL_* variables ask for traces that cannot be sent. The text says what to change."""


class Span:
    """One step of a trace. It ends with `end` or its `with`; after that, nothing changes it.

    Only the class of an error is recorded, since its text may hold personal data.
    """

    __slots__ = ("_error_status", "_leave", "_span", "traceparent")

    def __init__(self, traceparent: str | None, span: "trace.Span | None" = None, *, error_status: int = 0) -> None:
        """`span` is None while traces are off. `error_status` is the first HTTP status that is an error."""
        #: What to pass on, so that the next step becomes a child of this one; None where there is no trace.
        self.traceparent = traceparent
        self._span = span
        self._error_status = error_status
        self._leave: Callable[[], object] | None = None

    def set(self, name: str, value: str | int) -> None:
        """Set an attribute, if traces are on. Never pass personal data."""
        if self._span is not None:
            self._span.set_attribute(name, value)

    def end(self, *, status: int | None = None, error: BaseException | None = None) -> None:
        """End it. It has failed if there is an error, or if the `status` of the HTTP response says so."""
        if self._span is None:
            return
        if status is not None:
            self._span.set_attribute("http.response.status_code", status)
        if error is not None:
            self._record_error(self._span, type(error).__name__)
        elif status is not None and status >= self._error_status:
            self._record_error(self._span, str(int(status)))
        self._span.end()
        self._span = None
        if self._leave is not None:
            self._leave()

    def make_current(self) -> None:
        """Make it the parent of the calls that this thread makes until it ends. End it on this thread."""
        if self._span is not None:
            from opentelemetry import context, trace

            self._leave = partial(context.detach, context.attach(trace.set_span_in_context(self._span)))

    def __enter__(self) -> Self:
        self.make_current()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self.end(error=error)

    @staticmethod
    def _record_error(span: "trace.Span", kind: str) -> None:
        from opentelemetry.trace import StatusCode

        span.set_attribute("error.type", kind)
        span.set_status(StatusCode.ERROR)


class Tracing:
    """Makes the spans of one process. Safe to use from many threads."""

    def __init__(self, provider: "TracerProvider | None" = None, *, queue_system: str = "") -> None:
        """Without `provider`, traces are off. `queue_system`: `RABBITMQ` or `EMBEDDED`."""
        self._provider = provider
        self._queue_system = queue_system
        self._tracer = None if provider is None else provider.get_tracer("payment-callbacks", _version())

    @property
    def on(self) -> bool:
        """Whether spans are made."""
        return self._tracer is not None

    def serve(self, method: str, route: str, traceparent: str | None) -> Span:
        """The span of a request to us. `traceparent` is its header; without one, a trace begins here.

        `route` is the pattern of the path, "" where none matches.
        """
        if self._tracer is None:
            return Span(parse_traceparent(traceparent) or new_traceparent())
        method = method if method in _METHODS else "_OTHER"
        attributes = {"http.request.method": method} | ({"http.route": route} if route else {})
        name = f"{method} {route}" if route else method
        return self._start(name, "SERVER", _context_of(traceparent), attributes, error_status=_SERVER_ERROR)

    def call(self, url: SplitResult, traceparent: str | None = None) -> Span:
        """The span of a POST that we send to `url`: a child of `traceparent`, or of this thread's current span."""
        if self._tracer is None:
            return Span(traceparent)
        about: _Attributes = {
            "http.request.method": "POST",
            "server.address": url.hostname or "",
            "server.port": url.port or (443 if url.scheme == "https" else 80),
        }
        context = None if traceparent is None else _context_of(traceparent)
        return self._start("POST", "CLIENT", context, about, error_status=_CLIENT_ERROR)

    def publish(self, exchange: str, traceparent: str | None, *, system: str = "") -> Span:
        """The span of a message that we publish, until it is confirmed. `system` is by default that of our queue."""
        if self._tracer is None:
            return Span(traceparent)
        about = self._messaging("publish", "send", exchange, system)
        return self._start(f"publish {exchange}", "PRODUCER", _context_of(traceparent), about)

    @contextmanager
    def process(self, queue: str, traceparents: Sequence[str | None]) -> Iterator[Sequence[Span]]:
        """A span for each message of a batch, in the trace of that message, while the `with` lasts.

        The batch has a span of its own, in a trace of its own, and the two are linked in both directions: a batch has
        many parents. Where none of the traces is sampled, it has none.
        """
        if self._tracer is None:
            yield [Span(traceparent) for traceparent in traceparents]
            return
        from opentelemetry.trace import Link

        about = self._messaging("process", "process", queue)
        contexts = [_context_of(traceparent) for traceparent in traceparents]
        spans = [self._start(f"process {queue}", "CONSUMER", context, about) for context in contexts]
        sampled = [one._span for one in spans if one._span is not None and one._span.is_recording()]
        with ExitStack() as open_spans:
            for span in spans:
                open_spans.push(span)
            if sampled:
                of_batch = {**self._messaging("record", "process", queue), "messaging.batch.message_count": len(spans)}
                links = [Link(one.get_span_context()) for one in sampled]
                batch = self._start(f"record {queue}", "CONSUMER", _context_of(None), of_batch, links=links)
                open_spans.push(batch)
                if batch._span is not None:
                    for one in sampled:
                        one.add_link(batch._span.get_span_context())
            yield spans

    def inquire(self, traceparent: str | None) -> Span:
        """The span of a question to the gateway, in the order's trace; without one, a trace begins here."""
        if self._tracer is None:
            return Span(traceparent or new_traceparent())
        return self._start("inquiry", "INTERNAL", _context_of(traceparent), {})

    def close(self) -> None:
        """Send the last spans, for two seconds at most. Safe to call twice."""
        if self._provider is not None:
            # The library waits for the collector as long as a request may take.
            closing = threading.Thread(target=self._provider.shutdown, name="traces-close", daemon=True)
            closing.start()
            closing.join(_CLOSE_SECONDS)

    def _messaging(self, name: str, type_: str, destination: str, system: str = "") -> "dict[str, str | int]":
        return {
            "messaging.system": system or self._queue_system,
            "messaging.operation.name": name,
            "messaging.operation.type": type_,
            "messaging.destination.name": destination,
        }

    def _start(
        self,
        name: str,
        kind: str,
        context: "Context | None",
        attributes: "_Attributes",
        *,
        links: "Sequence[trace.Link]" = (),
        error_status: int = 0,
    ) -> Span:
        """Start a span. Its parent is that of `context`; of None, this thread's current span."""
        from opentelemetry.trace import SpanKind

        assert self._tracer is not None  # noqa: S101 - the callers check it
        made = self._tracer.start_span(name, context, SpanKind[kind], attributes, links)
        its = made.get_span_context()
        traceparent = f"00-{its.trace_id:032x}-{its.span_id:016x}-{its.trace_flags:02x}"
        return Span(traceparent, made, error_status=error_status)


#: Traces are off.
NO_TRACING = Tracing()


def tracing_factory(environment: Mapping[str, str], *, role: str, queue_system: str) -> Callable[[], Tracing]:
    """A function that makes the `Tracing` of a process; call it after the last fork, since it starts a thread.

    `environment` holds the OTEL_* variables of OpenTelemetry's specification; OpenTelemetry reads them itself, too.
    Raises `TracingUnusable`.
    """
    if not _traces_wanted(environment):
        return Tracing
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise TracingUnusable(
            f"OTEL_* variables ask for traces, and {error.name} is not installed: "
            "pip install 'payment-callbacks[otel]', or set OTEL_SDK_DISABLED=true"
        ) from error
    try:
        BatchSpanProcessor(OTLPSpanExporter()).shutdown()  # type: ignore[no-untyped-call]  # it has no type hints
    except ValueError as error:
        raise TracingUnusable(f"the OTEL_* variables cannot be used: {error}") from error
    return partial(_start_tracing, f"payment-callbacks-{role}", queue_system)


def _traces_wanted(environment: Mapping[str, str]) -> bool:
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return False
    if exporter not in ("", "otlp"):
        raise TracingUnusable(f"OTEL_TRACES_EXPORTER is {exporter!r}: only `otlp` and `none` are known")
    if not exporter and not any(environment.get(name) for name in _ENDPOINTS):
        return False
    for name in _PROTOCOLS:
        if protocol := environment.get(name):
            if protocol != _PROTOCOL:
                raise TracingUnusable(f"{name} is {protocol!r}: traces are sent as {_PROTOCOL} only")
            break
    return True


def _start_tracing(service_name: str, queue_system: str) -> Tracing:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

    outages = _OutageLog()

    class ReportingExporter(OTLPSpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            result = super().export(spans)
            if result is SpanExportResult.SUCCESS:
                outages.end()
            return result

    library = logging.getLogger("opentelemetry")
    library.addHandler(outages)
    library.propagate = False
    logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)  # not each of the tries of one request
    ours = Resource.create({"service.name": service_name, "service.version": _version()})
    # What the variables say counts more than what we say.
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(ReportingExporter()))
    return Tracing(provider, queue_system=queue_system)


class _OutageLog(logging.Handler):
    """Takes the log lines of OpenTelemetry, and writes one line for each outage instead."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._failing = False

    def emit(self, record: logging.LogRecord) -> None:
        """Log the first problem since the last success."""
        if not self._failing:
            self._failing = True
            _log.warning("traces_not_sent", reason=record.getMessage())

    def end(self) -> None:
        """Log that it works again, if it did not."""
        if self._failing:
            self._failing = False
            _log.info("traces_sent_again")


def _context_of(traceparent: str | None) -> "Context":
    """The context with this parent; without a parent, one in which a trace begins."""
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    parsed = parse_traceparent(traceparent)
    if parsed is None:
        return Context()
    _, trace_id, span_id, flags = parsed.split("-")
    parent = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
    return set_span_in_context(NonRecordingSpan(parent), Context())


def _version() -> str:
    return version("payment-callbacks")
