"""Partners with money, each with one customer, whose balances and withdrawals are timed over HTTP."""

import asyncio
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
from services.payouts import LEDGER
from services.payouts.state import Person
from services.runtime.codec import Codec
from services.runtime.redis_client import connect
from services.runtime.redis_reader import RedisReader
from services.runtime.settings import Settings

SEED_MINOR, PAYMENT_MINOR, LEAST_WITHDRAWAL_MINOR = 1_000_000_000, 1_000, 5_000
PERCENT = 10
"""What keycrm gives a partner with one paying client."""
LOOK_SECONDS, GIVEN_UP_SECONDS = 0.01, 30.0


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
        self._changes = _Changes(settings)

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=self._connections)
        timeout = aiohttp.ClientTimeout(total=GIVEN_UP_SECONDS)
        self._http = aiohttp.ClientSession(self._url, connector=connector, timeout=timeout)
        self._producer = AIOKafkaProducer(**self._settings.kafka_client_options(), acks="all", linger_ms=0)
        await self._producer.start()
        self._watching = asyncio.create_task(self._changes.watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watching.cancel()
        await self._changes.stop()
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
        """Publish a payment of the probe's customer, and ask until the balance shows it; whether it ever does.

        The API is asked when something has changed, not again and again: that would be a load of its own, and the
        slower the system, the more of it.
        """
        topic, key, value = _placed(_paid(probe, PAYMENT_MINOR), micros(self._settings.now()))
        probe.accrued_minor += PAYMENT_MINOR * PERCENT // 100
        expected = probe.accrued_minor
        partition = partition_of(key, self._settings.partitions)
        try:
            async with asyncio.timeout(GIVEN_UP_SECONDS):
                changed = await self._changes.of(probe.partner_id)
                await self._producer.send(topic.name, value, key=key.encode(), partition=partition)
                while True:  # other things change, too
                    await changed
                    changed = await self._changes.of(probe.partner_id)
                    if await self.accrued_minor(probe) >= expected:
                        changed.cancel()
                        return True
        except TimeoutError:
            return False


class _Changes:
    """Notices in Redis when something of a partner's has changed; one look, every few milliseconds, for all of them."""

    def __init__(self, settings: Settings) -> None:
        self._redis = connect(settings.redis_url())
        self._reader = RedisReader(settings.partitions, self._redis, Codec.of(settings))
        self._waiting: dict[asyncio.Future[None], tuple[str, Person]] = {}

    async def of(self, partner_id: str) -> asyncio.Future[None]:
        """Done when the ledger's state of the partner is another than now."""
        changed = asyncio.get_running_loop().create_future()
        self._waiting[changed] = partner_id, await self._reader.state(LEDGER, partner_id)
        return changed

    async def watch(self) -> None:
        """Until it is cancelled. Looking takes a fifth of the time at most: it must not hold up what is measured."""
        clock, took = asyncio.get_running_loop().time, 0.0
        while True:
            await asyncio.sleep(max(LOOK_SECONDS, 4 * took))
            began = clock()
            self._waiting = {changed: of for changed, of in self._waiting.items() if not changed.done()}
            looked_at = list(self._waiting.items())
            states = await self._reader.states(LEDGER, [partner_id for _, (partner_id, _) in looked_at])
            for (changed, (_, before)), now in zip(looked_at, states, strict=True):
                if now != before and not changed.done():
                    changed.set_result(None)
            took = clock() - began

    async def stop(self) -> None:
        await self._redis.aclose()
