"""A payment that comes with a trace: what follows from it carries the trace on, the same after every replay."""

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from schemas.events import Event, PartnerActivated, PaymentSucceeded, ReferralAttributed, event_json, parse_event
from schemas.ids import partition_of
from schemas.moments import DAY, parse_instant
from schemas.money import Money
from schemas.topics import COMMISSIONS, PAYMENTS, SALES
from services.runtime.simulate import World
from services.runtime.spans import Spans
from services.runtime.stage import Record
from services.runtime.tracing import HEADER, Trace, onward, span_id, trace_of
from tests.worlds import world

TRACE, SPAN = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"  # pragma: allowlist secret
GIVEN = b"00-%b-%b-01" % (TRACE, SPAN)
AT = parse_instant("2026-01-01T00:00:00Z")


def traced_payment(seed: int) -> World:
    made = world(seed)
    bound = ReferralAttributed(
        customer_id="c1", partner_id="p1", program_id="keycrm", program_version=1, method="click", attributed_at=AT
    )
    made.publish(
        Event("a", "/attribution", AT, PartnerActivated(partner_id="p1", program_id="keycrm", activated_at=AT)),
        Event("b", "/attribution", AT, bound),
    )
    made.run()
    paid = PaymentSucceeded(payment_id="y1", customer_id="c1", amount=Money(minor=10_000, currency="USD"))
    value = event_json(Event("c", "/platform", AT + DAY, paid))
    made.append(PAYMENTS.name, partition_of("c1", made.partitions), b"c1", value, ((HEADER, GIVEN),))
    return made.run()


def only(made: World, topic: str, kind: str) -> Record:
    found = [r for n in range(made.partitions) for r in made.log[topic, n] if parse_event(r.value).type == kind]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("seed", range(3))
def test_the_trace_goes_on_hop_by_hop(seed: int) -> None:
    made = traced_payment(seed)
    paid, stated = only(made, PAYMENTS.name, "payment.succeeded"), only(made, SALES.name, "sale.stated")
    accrued = only(made, COMMISSIONS.name, "commission.accrued")
    first = trace_of(stated.headers)
    assert first == Trace(TRACE, span_id(paid, f"commission.sales:{paid.partition}"), b"01")
    second = trace_of(accrued.headers)
    assert second == Trace(TRACE, span_id(stated, f"commission.partners:{stated.partition}"), b"01")


@pytest.mark.parametrize(
    "written",
    [b"", b"00-" + TRACE, GIVEN.upper(), b"00-" + b"0" * 32 + b"-" + SPAN + b"-01", GIVEN + b"-more", None],
)
def test_what_is_no_trace_is_passed_over(written: bytes) -> None:
    assert onward(Record("payments", 0, 0, b"c1", b"", 0, ((HEADER, written),)), "cell") == ()


def test_a_collector_is_told_of_what_is_sampled_alone() -> None:
    exporter = InMemorySpanExporter()
    spans = Spans("commission", exporter)
    sampled = Record("payments", 3, 7, b"c1", b"", 0, ((HEADER, GIVEN),))
    unsampled = Record("payments", 3, 8, b"c1", b"", 0, ((HEADER, GIVEN[:-2] + b"00"),))
    untraced = Record("payments", 3, 9, b"c1", b"", 0, ())
    spans.folded("commission.sales:3", [sampled, unsampled, untraced], 1_000, 2_000)
    spans.stop()
    (span,) = exporter.get_finished_spans()
    assert span.context is not None
    assert span.parent is not None
    assert (span.context.trace_id, span.parent.span_id) == (int(TRACE, 16), int(SPAN, 16))
    assert span.context.span_id == int(span_id(sampled, "commission.sales:3"), 16)
    assert (span.name, span.start_time, span.end_time) == ("fold payments", 1_000, 2_000)
    assert dict(span.attributes or {})["messaging.kafka.offset"] == 7
