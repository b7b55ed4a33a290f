"""What is traced, told to an OpenTelemetry collector: one span for each record that a cell folded.

With REFSTREAM_OTLP_URL alone. A span lasts from when the record's batch was begun until it was committed, as a child of
what the record came from; whoever published the first one says whether it is sampled.
"""

from collections.abc import Iterable
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator

from services.runtime.stage import Record
from services.runtime.tracing import Trace, span_id, trace_of


def to_collector(url: str) -> SpanExporter:
    """Over HTTP, in batches, in a thread of its own; what the collector does not take in time is dropped."""
    return OTLPSpanExporter(endpoint=f"{url.rstrip('/')}/v1/traces")


class Spans:
    """Tells a collector what was folded. Ids are given, never drawn."""

    def __init__(self, service: str, exporter: SpanExporter) -> None:
        self._ids = _GivenIds()
        resource = Resource.create({SERVICE_NAME: f"refstream-{service}"})
        self._provider = TracerProvider(resource=resource, id_generator=self._ids)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("refstream")

    def folded(self, by: str, records: Iterable[Record], began_ns: int, ended_ns: int) -> None:
        """Those of a committed batch that are traced. `by`: the cell; times since 1970."""
        for record in records:
            if record.headers and (of := trace_of(record.headers)):
                self._told(by, record, of, began_ns, ended_ns)

    def _told(self, by: str, record: Record, of: Trace, began_ns: int, ended_ns: int) -> None:
        parent = trace.SpanContext(
            int(of.trace_id, 16), int(of.span_id, 16), is_remote=True, trace_flags=trace.TraceFlags(int(of.flags, 16))
        )
        self._ids.span_id = int(span_id(record, by), 16)
        span = self._tracer.start_span(
            f"fold {record.topic}",
            context=trace.set_span_in_context(trace.NonRecordingSpan(parent)),
            kind=trace.SpanKind.CONSUMER,
            start_time=began_ns,
            attributes={
                "refstream.cell": by,
                "messaging.system": "kafka",
                "messaging.destination.name": record.topic,
                "messaging.destination.partition.id": str(record.partition),
                "messaging.kafka.offset": record.offset,
            },
        )
        span.end(ended_ns)

    def stop(self) -> None:
        """Tell what was not told yet."""
        self._provider.shutdown()


class _GivenIds(IdGenerator):
    span_id = 0

    def generate_span_id(self) -> int:
        return self.span_id

    def generate_trace_id(self) -> Any:
        raise AssertionError("a trace begins with whoever published the record")
