"""How far each service is behind: what the topics hold, less what its group has committed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from services.runtime.settings import Settings


@dataclass(frozen=True, slots=True)
class Lag:
    """One partition of a topic that a service reads: up to where it has folded, and how many records it has not."""

    service: str
    topic: str
    partition: int
    lag: int
    folded: int


async def lags(settings: Settings, reads: Mapping[str, Iterable[str]]) -> list[Lag]:
    """Every partition's lag. `reads`: the topics that each service reads; the group's name is the service's.

    A partition without a committed position counts from its beginning. Raises KafkaError where Kafka does not answer.
    """
    admin = AIOKafkaAdminClient(**settings.kafka_client_options())
    consumer = AIOKafkaConsumer(**settings.kafka_client_options(), enable_auto_commit=False)
    await admin.start()
    try:
        await consumer.start()
        try:
            return await _lags(reads, settings.partitions, admin, consumer)
        finally:
            await consumer.stop()
    finally:
        await admin.close()


async def _lags(
    reads: Mapping[str, Iterable[str]], partitions: int, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer
) -> list[Lag]:
    read = {
        service: [TopicPartition(topic, partition) for topic in topics for partition in range(partitions)]
        for service, topics in reads.items()
    }
    every = sorted({partition for partitions_read in read.values() for partition in partitions_read})
    consumer.assign(every)  # one request for the metadata of all topics, instead of one for each
    consumer.pause(*every)
    # Committed first: what arrives in between shows as lag, never as less than none.
    committed = {service: await admin.list_consumer_group_offsets(service) for service in reads}
    begins, ends = await consumer.beginning_offsets(every), await consumer.end_offsets(every)
    found = []
    for service, partitions_read in read.items():
        for at in partitions_read:
            known = committed[service].get(at)
            position = max(known.offset if known else 0, begins[at])
            found.append(Lag(service, at.topic, at.partition, max(0, ends[at] - position), position))
    return found
