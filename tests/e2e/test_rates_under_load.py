"""Rates and the switch of a program are changed while 100,000 payments flow: live, rebuilt and recomputed are the same.

A real program is published over HTTP, and further versions of it while customers buy, so a payment often comes to a
worker before the version that is in force at it. What each partner holds must be what an independent reading of the
rules gives from the log, and what a rebuild gives.
"""

import asyncio
import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer

from schemas import events
from schemas.events import Event, event_json, parse_event
from schemas.ids import partition_of
from schemas.moments import SECOND, micros
from schemas.money import Money
from schemas.programs import shipped
from schemas.topics import TOPIC_OF
from services.cli.token import Role, signed
from tests.credit_oracle import Buyer, InForce, Purchase, earned
from tests.e2e.conftest import Running
from tests.over_kafka import read, settle

pytestmark = pytest.mark.infra

PROGRAM = "rates-under-load"
PARTNERS, CUSTOMERS, PAYMENTS, VERSIONS = 400, 50_000, 100_000, 20
AT_ONCE = 1_000
FOLDED_SECONDS = 300


def test_balances_are_the_same_live_after_a_rebuild_and_recomputed(running: Running) -> None:
    rng = random.Random(11)
    _publish_version(running, rng, enabled=True)
    began = micros(running.settings.now())
    buyers = [Buyer(f"rul-c{n}", f"rul-p{n * 7919 % PARTNERS}", began) for n in range(CUSTOMERS)]
    asyncio.run(_flow(running, rng, buyers, began))
    asyncio.run(settle(running.settings, FOLDED_SECONDS))
    log = asyncio.run(read(running.settings))

    versions = _versions(log["programs"])
    assert len(versions) == VERSIONS + 1
    by_partner: dict[str, list[Buyer]] = {}
    for buyer in buyers:
        by_partner.setdefault(buyer.partner_id, []).append(buyer)
    wanted = {partner: earned(versions, own, partner) for partner, own in by_partner.items()}
    live = _wallets(running)
    assert live == wanted
    assert sum(live.values()) > PAYMENTS / 10

    rebuilt = running.refstream("rebuild", "--yes", "--service", "commission", "--service", "rewards")
    assert rebuilt.returncode == 0, rebuilt.stdout + rebuilt.stderr
    assert _wallets(running) == wanted
    asyncio.run(settle(running.settings, FOLDED_SECONDS))
    again = asyncio.run(read(running.settings))
    assert {record.value for record in again["rewards"]} == {record.value for record in log["rewards"]}


def _publish_version(running: Running, rng: random.Random, *, enabled: bool) -> None:
    (document,) = (program.as_document() for program in shipped() if program.program_id == "proxy-credits")
    rate = str(rng.randint(1, 9))
    providers = {"north": {"product_rate": rate, "redemption_rate": "10"}}
    body = {**document, "program_id": PROGRAM, "enabled": enabled, "providers": providers}
    body.pop("version", None)
    token = signed(running.settings, Role.admin, "admin")
    answer = httpx.put(
        f"{running.url}/attribution/programs/{PROGRAM}",
        json=body,
        headers={"authorization": f"Bearer {token}", "idempotency-key": f"{PROGRAM}-{rng.random()}"},
        timeout=30,
        trust_env=False,
    )
    assert answer.status_code in (200, 201), answer.text


async def _flow(running: Running, rng: random.Random, buyers: list[Buyer], began: int) -> None:
    """Bind the customers, then let them buy, each twice, some with a refund; and change the program meanwhile."""
    producer = AIOKafkaProducer(
        **running.settings.kafka_client_options(), acks="all", enable_idempotence=True, linger_ms=5
    )
    await producer.start()
    try:
        bound = (_bound(buyer) for buyer in buyers)
        while portion := list(islice(bound, AT_ONCE)):
            await _send(running, producer, portion)
        turns = [*rng.sample(buyers, len(buyers)), *rng.sample(buyers, PAYMENTS - len(buyers))]
        every = PAYMENTS // VERSIONS
        for start in range(0, PAYMENTS, AT_ONCE):
            if start % every == 0:
                change = asyncio.create_task(
                    asyncio.to_thread(_publish_version, running, rng, enabled=rng.random() < 0.8)
                )
            now = max(micros(running.settings.now()), began + SECOND)
            portion = []
            for number, buyer in enumerate(turns[start : start + AT_ONCE]):
                portion += _bought(rng, buyer, f"rul-{start + number}", now + number)
            await _send(running, producer, portion)
            if (start + AT_ONCE) % every == 0:
                await change
    finally:
        await producer.stop()


async def _send(running: Running, producer: Any, portion: list[Event]) -> None:
    waiting = []
    for event in portion:
        topic = TOPIC_OF[type(event.data)]
        key = topic.key(event.data)
        partition = partition_of(key, running.settings.partitions)
        waiting.append(await producer.send(topic.name, event_json(event), key=key.encode(), partition=partition))
    await asyncio.gather(*waiting)


def _bound(buyer: Buyer) -> Event:
    data = events.ReferralAttributed(
        customer_id=buyer.customer_id,
        partner_id=buyer.partner_id,
        program_id=PROGRAM,
        program_version=1,
        method="click",
        attributed_at=buyer.bound_at,
    )
    return Event(f"bound-{buyer.customer_id}", "/test", buyer.bound_at, data)


def _bought(rng: random.Random, buyer: Buyer, name: str, at: int) -> Iterator[Event]:
    bought = Purchase(name, at, rng.randint(1, 50) * 100, "residential", "north", str(rng.randint(1, 20)))
    buyer.purchases.append(bought)
    amount = Money(minor=bought.minor, currency="USD")
    paid = events.PaymentSucceeded(
        payment_id=name,
        customer_id=buyer.customer_id,
        amount=amount,
        product_family=bought.family,
        provider=bought.provider,
        quantity_gb=bought.gb,
    )
    yield Event(name, "/test", at, paid)
    if rng.random() < 0.05:
        lost = rng.randint(1, bought.minor)
        bought.losses.append((at + 1, lost))
        refund = events.PaymentRefunded(
            payment_id=name,
            customer_id=buyer.customer_id,
            refund_id=f"{name}-r",
            amount=Money(minor=lost, currency="USD"),
        )
        yield Event(f"{name}-r", "/test", at + 1, refund)


def _versions(records: list[Any]) -> list[InForce]:
    """The program's versions as they stand on the log, in order."""
    published = [
        data for record in records if isinstance(data := parse_event(record.value).data, events.ProgramPublished)
    ]
    own = sorted((data for data in published if data.program_id == PROGRAM), key=lambda data: data.version)
    rates = [{name: each["product_rate"] for name, each in data.document["providers"].items()} for data in own]
    return [
        InForce(data.effective_at, bool(data.document["enabled"]), rate) for data, rate in zip(own, rates, strict=True)
    ]


def _wallets(running: Running) -> dict[str, int]:
    """The credits of every partner, as the API shows them."""
    found = {}
    for number in range(PARTNERS):
        partner = f"rul-p{number}"
        shown = running.get(f"/rewards/partners/{partner}/wallet")["credits"]
        found[partner] = sum(int(each["balance"]) for each in shown)
    return found
