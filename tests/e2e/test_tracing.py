"""One payment's way through running workers, as a collector hears of it."""

import asyncio
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from schemas.events import Event, PartnerActivated, PaymentSucceeded, ReferralAttributed, event_json
from schemas.ids import partition_of
from schemas.moments import DAY, parse_instant
from schemas.money import Money
from schemas.topics import COMMISSIONS, PAYMENTS, SALES, TOPIC_OF
from services.local.ports import any_free
from services.runtime.tracing import HEADER
from tests.conftest import Stack
from tests.e2e.conftest import Running
from tests.over_kafka import settle

pytestmark = pytest.mark.infra
PORT = any_free()
ENVIRONMENT = {"REFSTREAM_OTLP_URL": f"http://127.0.0.1:{PORT}"}
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"  # pragma: allowlist secret
HEARD_SECONDS, FOLDED_SECONDS = 60, 120
AT = parse_instant("2026-01-01T00:00:00Z")


@pytest.fixture(scope="module")
def heard() -> Iterator[list[Any]]:
    """All spans that the workers tell of."""
    spans: list[Any] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
            spans.extend(span for of in told.resource_spans for scope in of.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", PORT), Collector)
    Thread(target=server.serve_forever, daemon=True).start()
    yield spans
    server.shutdown()
    server.server_close()


async def test_a_payment_is_followed_from_the_platform_to_the_ledger(
    heard: list[Any], running: Running, stack: Stack
) -> None:
    customer, partner = f"c-{uuid.uuid4().hex}", f"p-{uuid.uuid4().hex}"
    active = PartnerActivated(partner_id=partner, program_id="keycrm", activated_at=AT)
    bound = ReferralAttributed(
        customer_id=customer,
        partner_id=partner,
        program_id="keycrm",
        program_version=1,
        method="click",
        attributed_at=AT,
    )
    paid = PaymentSucceeded(
        payment_id=f"y-{customer}", customer_id=customer, amount=Money(minor=10_000, currency="USD")
    )
    async with AIOKafkaProducer(**stack.settings.kafka_client_options()) as producer:
        # One after the other: of a payment that waits for its signup, it is the signup that goes on.
        for data, headers in ((active, []), (bound, []), (paid, [(HEADER, f"00-{TRACE}-{SPAN}-01".encode())])):
            topic = TOPIC_OF[type(data)]
            key = topic.key(data)
            value = event_json(Event(uuid.uuid4().hex, "/platform", AT + DAY, data))
            where = partition_of(key, stack.settings.partitions)
            await producer.send_and_wait(topic.name, value, key=key.encode(), partition=where, headers=headers)
            await settle(stack.settings, FOLDED_SECONDS)
    sales = await child(heard, SPAN, "commission.sales", PAYMENTS.name)
    partners = await child(heard, sales, "commission.partners", SALES.name)
    await child(heard, partners, "payouts.ledger", COMMISSIONS.name)
    assert {span.trace_id.hex() for span in heard} == {TRACE}
    assert not any(customer in str(span) or partner in str(span) for span in heard)


async def child(heard: list[Any], parent: str, stage: str, topic: str) -> str:
    """The id of the span of a stage below another, as soon as it is heard of."""
    deadline = time.monotonic() + HEARD_SECONDS
    while time.monotonic() < deadline:
        for span in heard:
            told = {attribute.key: attribute.value for attribute in span.attributes}
            if span.parent_span_id.hex() == parent and told["refstream.cell"].string_value.startswith(f"{stage}:"):
                assert told["messaging.destination.name"].string_value == topic
                return str(span.span_id.hex())
        await asyncio.sleep(0.2)
    raise AssertionError(f"no span of {stage} below {parent}: {heard}")
