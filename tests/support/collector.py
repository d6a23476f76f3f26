"""A collector of traces: takes what is sent over OTLP and HTTP, and shows it as spans."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.support.http_server import ScriptedServer


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedSpan:
    """One span. Ids are in hex, as in a traceparent."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    #: "" for the first of its trace.
    parent_id: str
    #: The ids of the spans that it is linked to.
    links: Sequence[str]
    attributes: Mapping[str, object]
    failed: bool

    @property
    def traceparent(self) -> str:
        """What it passes on, apart from the flags."""
        return f"00-{self.trace_id}-{self.span_id}"


class Collector(ScriptedServer):
    """Use it as a context manager. It listens on a free port of 127.0.0.1, and takes everything."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that send traces here, soon after they were made."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.origin, "OTEL_BSP_SCHEDULE_DELAY": "50"}

    @property
    def spans(self) -> Sequence[CollectedSpan]:
        """Every span that was sent so far."""
        return [span for request in list(self.requests) if request.path == "/v1/traces" for span in _read(request.body)]

    def trace(self, trace_id: str) -> Sequence[CollectedSpan]:
        """The spans of one trace."""
        return [span for span in self.spans if span.trace_id == trace_id]


def _read(body: bytes) -> Sequence[CollectedSpan]:
    return [
        CollectedSpan(
            service=next(one.value.string_value for one in resource.resource.attributes if one.key == "service.name"),
            name=span.name,
            kind=SpanMessage.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            links=[link.span_id.hex() for link in span.links],
            attributes={one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes},
            failed=span.status.code == Status.STATUS_CODE_ERROR,
        )
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
