"""How long a service that was hit takes until it puts out again, in every partition."""

import asyncio
import time
import uuid
from collections.abc import Collection
from datetime import timedelta
from itertools import count

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from schemas import commands, events
from schemas.events import Event, Payload
from schemas.ids import partition_of
from schemas.moments import micros
from schemas.money import Money
from schemas.topics import ANSWERS_ATTRIBUTION, ANSWERS_PAYOUTS, ANSWERS_REWARDS, DEAD_LETTERS
from services.runtime.settings import Settings
from tests.over_kafka import publish

PATIENCE_SECONDS = 120
OUTPUT = {
    "attribution": ANSWERS_ATTRIBUTION.name,
    "commission": DEAD_LETTERS.name,
    "rewards": ANSWERS_REWARDS.name,
    "payouts": ANSWERS_PAYOUTS.name,
}
"""Where each service answers what it is asked here."""


def seconds_until_out(settings: Settings, services: Collection[str]) -> float:
    """Ask each of the services something in every partition, that it answers alone, and wait for all answers.

    Errors: TimeoutError where one is lacking after PATIENCE_SECONDS.
    """
    return asyncio.run(_until_out(settings, services))


async def _until_out(settings: Settings, services: Collection[str]) -> float:
    began = time.monotonic()
    asked = {
        f"probe-{service}-{uuid.uuid4().hex}.": (service, partition)
        for service in services
        for partition in range(settings.partitions)
    }
    async with asyncio.timeout(PATIENCE_SECONDS):
        consumer = await _at_the_ends(settings, {OUTPUT[service] for service in services})
        try:
            questions = [_question(service, name, n, settings) for name, (service, n) in asked.items()]
            await publish(settings, questions, PATIENCE_SECONDS)
            missing = set(asked)
            while missing:
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    said = b"".join(record.value for record in records)
                    missing -= {name for name in missing if name.encode() in said}
        finally:
            await consumer.stop()
    return time.monotonic() - began


async def _at_the_ends(settings: Settings, topics: Collection[str]) -> AIOKafkaConsumer:
    while True:
        consumer = AIOKafkaConsumer(**settings.kafka_client_options(), enable_auto_commit=False, fetch_max_wait_ms=25)
        try:
            await consumer.start()
            partitions = [TopicPartition(topic, n) for topic in topics for n in range(settings.partitions)]
            consumer.assign(partitions)
            for partition, end in (await consumer.end_offsets(partitions)).items():
                consumer.seek(partition, end)
        except KafkaError:
            await consumer.stop()
            await asyncio.sleep(0.1)
        else:
            return consumer


def _question(service: str, name: str, partition: int, settings: Settings) -> Event:
    """What a service answers out of its own cells: a command that it refuses, a payment that is dated in the future."""
    key = next(key for n in count() if partition_of(key := f"{name}{n}", settings.partitions) == partition)
    by = {"command_id": key, "body_hash": "-", "caller": "platform:platform", "partner_id": key}
    data: Payload
    match service:
        case "attribution":
            data = commands.CreateLink(**by, program_id="keycrm", public_url="http://refstream.example")
        case "commission":
            data = events.PaymentSucceeded(payment_id=key, customer_id=key, amount=Money(minor=100, currency="USD"))
        case "rewards":
            data = commands.RequestClaim(**by, program_id="keycrm", provider="nobody")
        case "payouts":
            data = commands.RequestWithdrawal(
                **by, program_id="keycrm", amount=Money(minor=100, currency="USD"), destination="nowhere"
            )
        case _:
            raise LookupError(service)
    at = settings.now() + timedelta(days=1 if service == "commission" else 0)
    return Event(key, "/probe", micros(at), data)
