"""Partners with money, each with one customer, whose balances and withdrawals are timed over HTTP."""

import asyncio
import time
import uuid
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from aiokafka import AIOKafkaProducer

from schemas.events import Event, PartnerActivated, Payload, PaymentSucceeded, ReferralAttributed, event_json
from schemas.ids import partition_of
from schemas.moments import DAY, micros
from schemas.money import Money
from schemas.topics import PARTNERS, PAYMENTS, REFERRALS, TOPIC_OF, Topic
from services.cli.bench.load import publish
from services.cli.bench.workload import Record
from services.cli.token import Role, signed
from services.runtime.settings import Settings

SEED_MINOR, PAYMENT_MINOR, LEAST_WITHDRAWAL_MINOR = 1_000_000_000, 1_000, 5_000
PERCENT = 10
"""What keycrm gives a partner with one paying client."""
LOOK_SECONDS, GIVEN_UP_SECONDS = 0.005, 30.0


@dataclass(slots=True)
class Probe:
    """One partner. `accrued_minor`: what the balance must show when all that was published is folded."""

    number: int
    token: str
    accrued_minor: int = SEED_MINOR * PERCENT // 100

    @property
    def partner_id(self) -> str:
        return f"probe-p{self.number}"

    @property
    def customer_id(self) -> str:
        return f"probe-c{self.number}"


async def prepare(settings: Settings, count: int) -> list[Probe]:
    """Publish what makes `count` partners with money. They can be asked about when it is folded."""
    now = micros(settings.now())
    probes = [Probe(number, signed(settings, Role.partner, f"probe-p{number}")) for number in range(count)]
    per_topic: dict[str, list[Record]] = {}
    for probe in probes:
        for payload in (_activated(probe, now - 2 * DAY), _bound(probe, now - 2 * DAY), _paid(probe, SEED_MINOR)):
            topic, key, value = _placed(payload, now - DAY)
            per_topic.setdefault(topic.name, []).append((key, value))
    for name in (PARTNERS.name, REFERRALS.name, PAYMENTS.name):
        await publish(settings, name, per_topic[name])
    return probes


def _activated(probe: Probe, at: int) -> PartnerActivated:
    return PartnerActivated(partner_id=probe.partner_id, program_id="keycrm", activated_at=at)


def _bound(probe: Probe, at: int) -> ReferralAttributed:
    return ReferralAttributed(
        customer_id=probe.customer_id,
        partner_id=probe.partner_id,
        program_id="keycrm",
        program_version=1,
        method="click",
        attributed_at=at,
    )


def _paid(probe: Probe, minor: int) -> PaymentSucceeded:
    amount = Money(minor=minor, currency="USD")
    return PaymentSucceeded(payment_id=uuid.uuid4().hex, customer_id=probe.customer_id, amount=amount)


def _placed(payload: Payload, at: int) -> tuple[Topic, str, bytes]:
    topic = TOPIC_OF[type(payload)]
    return topic, topic.key(payload), event_json(Event(uuid.uuid4().hex, "/probe", at, payload))


class Api:
    """Asks the API. An async context manager. Every answer but a success is an error: aiohttp.ClientError."""

    def __init__(self, settings: Settings, url: str, connections: int = 0) -> None:
        self._settings, self._url, self._connections = settings, url, connections
        self._looking = asyncio.Lock()

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=self._connections)
        timeout = aiohttp.ClientTimeout(total=GIVEN_UP_SECONDS)
        self._http = aiohttp.ClientSession(self._url, connector=connector, timeout=timeout)
        self._producer = AIOKafkaProducer(**self._settings.kafka_client_options(), acks="all", linger_ms=0)
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()
        await self._http.close()

    async def accrued_minor(self, probe: Probe) -> int:
        path, headers = f"/payouts/partners/{probe.partner_id}/balance", {"Authorization": f"Bearer {probe.token}"}
        async with self._http.get(path, headers=headers) as answer:
            answer.raise_for_status()
            balances: list[dict[str, Any]] = (await answer.json())["balances"]
        return sum(int(book["accrued"]["minor"]) for book in balances)

    async def withdraw(self, probe: Probe) -> bool:
        """Ask for money; whether it was decided within the request."""
        path = f"/payouts/partners/{probe.partner_id}/withdrawals"
        headers = {"Authorization": f"Bearer {probe.token}", "Idempotency-Key": uuid.uuid4().hex}
        amount = {"minor": LEAST_WITHDRAWAL_MINOR, "currency": "USD"}
        body = {"program_id": "keycrm", "amount": amount, "destination": "PROBE-0001"}
        async with self._http.post(path, headers=headers, json=body) as answer:
            answer.raise_for_status()
            return answer.status == 201

    async def pay(self, probe: Probe) -> bool:
        """Publish a payment of the probe's customer, and look until the balance shows it; whether it ever does.

        All payments under way are looked for in turns: were each to look as often as it likes, a slow system would be
        asked more, and be slower for it.
        """
        topic, key, value = _placed(_paid(probe, PAYMENT_MINOR), micros(self._settings.now()))
        probe.accrued_minor += PAYMENT_MINOR * PERCENT // 100
        expected, deadline = probe.accrued_minor, time.monotonic() + GIVEN_UP_SECONDS
        partition = partition_of(key, self._settings.partitions)
        await self._producer.send(topic.name, value, key=key.encode(), partition=partition)
        while time.monotonic() < deadline:
            async with self._looking:
                if await self.accrued_minor(probe) >= expected:
                    return True
                await asyncio.sleep(LOOK_SECONDS)
        return False
