"""Publishing many records quickly, before a clock starts."""

import asyncio
from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from schemas.events import Event, ProgramPublished, event_json
from schemas.ids import partition_of
from schemas.moments import micros
from schemas.programs import shipped
from schemas.topics import PROGRAMS
from services.cli.bench.workload import Record
from services.runtime.settings import Settings

BATCH_BYTES = 256 * 1024
UNACKNOWLEDGED_BATCHES = 32
WARM, WARM_RECORD, WARM_TRANSACTIONS, WARM_RECORDS = "warm", b"x" * 350, 40, 1_000


async def publish(settings: Settings, topic: str, records: Iterable[Record]) -> int:
    """Write records to the partitions of their keys; returns how many, when the broker has them all."""
    count, sent = 0, []
    async with AIOKafkaProducer(
        **settings.kafka_client_options(), acks="all", enable_idempotence=True, linger_ms=0, max_batch_size=BATCH_BYTES
    ) as producer:
        filling: dict[int, Any] = {}
        for key, value in records:
            partition = partition_of(key, settings.partitions)
            batch = filling.get(partition) or producer.create_batch()
            if batch.append(key=key.encode(), value=value, timestamp=None) is None:
                sent.append(await producer.send_batch(batch, topic, partition=partition))
                batch = producer.create_batch()
                batch.append(key=key.encode(), value=value, timestamp=None)
            filling[partition] = batch
            count += 1
            if len(sent) >= UNACKNOWLEDGED_BATCHES:
                await asyncio.gather(*sent)
                sent.clear()
        sent += [await producer.send_batch(batch, topic, partition=at) for at, batch in filling.items()]
        await asyncio.gather(*sent)
    return count


async def publish_programs(settings: Settings) -> None:
    """The shipped programs as first versions, as attribution publishes them: now, so that no past month is verified."""
    records, now = [], micros(settings.now())
    for program in shipped():
        published = ProgramPublished(
            program_id=program.program_id, version=1, effective_at=now, document=program.as_document()
        )
        event = Event(f"{program.program_id}:1", "/attribution", now, published)
        records.append((PROGRAMS.key(published), event_json(event)))
    await publish(settings, PROGRAMS.name, records)


async def warm(settings: Settings) -> None:
    """Let a fresh Kafka write, read and commit for a while, on a topic of its own.

    One in service is warm: otherwise its just-in-time compiler would run on the cores that are measured.
    """
    admin = AIOKafkaAdminClient(**settings.kafka_client_options())
    await admin.start()
    await admin.create_topics([NewTopic(WARM, settings.partitions, 1)])
    await admin.close()
    consumer = AIOKafkaConsumer(
        WARM,
        **settings.kafka_client_options(),
        group_id=WARM,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
    )
    async with consumer, AIOKafkaProducer(**settings.kafka_client_options(), transactional_id=WARM) as producer:
        for _ in range(WARM_TRANSACTIONS):
            async with producer.transaction():
                await asyncio.gather(*[await producer.send(WARM, WARM_RECORD) for _ in range(WARM_RECORDS)])
            await consumer.getmany(timeout_ms=50, max_records=2 * WARM_RECORDS)
            await consumer.commit()
