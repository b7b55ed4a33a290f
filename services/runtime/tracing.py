"""One payment followed through all services: W3C trace context in the header `traceparent` of records.

Whoever publishes an event with that header has everything that follows from it carry the same trace, on Kafka and
whether or not anybody collects traces (`spans.py` tells a collector).

A span's id follows from the record's place and who folds it, so that folding again writes the same bytes. Records
without the header, the usual ones, cost nothing. What follows later from what waited (a refund for its payment) belongs
to the trace of what it waited for. Source: www.w3.org/TR/trace-context.
"""

import hashlib
import re
from typing import NamedTuple

from services.runtime.stage import Record

HEADER = "traceparent"
Headers = tuple[tuple[str, bytes], ...]
_WRITTEN = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")


class Trace(NamedTuple):
    """What a record says of the trace that it belongs to: hexadecimal, as it is written."""

    trace_id: bytes
    span_id: bytes
    flags: bytes


def trace_of(headers: Headers) -> Trace | None:
    """The trace that a record's headers name; None where they name none, or write it wrongly."""
    for name, value in headers:
        if name == HEADER:
            read = _WRITTEN.fullmatch(value or b"")
            return Trace(*read.groups()) if read else None
    return None


def span_id(record: Record, by: str) -> bytes:
    """The span of a cell's folding of a record."""
    place = f"{by} {record.topic} {record.partition} {record.offset}"
    return hashlib.blake2b(place.encode(), digest_size=8).hexdigest().encode()


def onward(record: Record, by: str) -> Headers:
    """The headers of what follows from a record in a cell; none where the record is not traced."""
    if not record.headers or (of := trace_of(record.headers)) is None:
        return ()
    return ((HEADER, b"00-%b-%b-%b" % (of.trace_id, span_id(record, by), of.flags)),)
