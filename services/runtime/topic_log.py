"""Topics read from their beginning to where they end now, for commands that look at the log."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from services.runtime.settings import Settings

AT_A_TIME = 2_000
PATIENCE_MS = 1_000


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as it stands in the log. `headers` in the order in which they were written."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    @property
    def position(self) -> str:
        return f"{self.partition}:{self.offset}"

    def header(self, name: str) -> str:
        """A header as text; empty where there is none."""
        return next((value.decode("utf-8", "replace") for key, value in self.headers if key == name), "")


async def entries(
    settings: Settings, topics: Iterable[str], partition: int | None = None, since: int = 0
) -> AsyncIterator[Entry]:
    """Every record of the topics up to where they end now, partition by partition in order, partitions mixed.

    `partition`: only this one; `since`: from this offset on. Blocks on Kafka; raises KafkaError where it does not
    answer, and SettingsRefused where its address is not set.
    """
    from aiokafka import AIOKafkaConsumer, TopicPartition

    from services.runtime.header_names import accept_any_header_name

    accept_any_header_name()
    partitions = range(settings.partitions) if partition is None else (partition,)
    every = [TopicPartition(topic, number) for topic in topics for number in partitions]
    consumer = AIOKafkaConsumer(**settings.kafka_client_options(), enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign(every)  # one request for the metadata of all topics
        consumer.pause(*every)
        begins, ends = await consumer.beginning_offsets(every), await consumer.end_offsets(every)
        unread = {at: ends[at] for at in every if max(begins[at], since) < ends[at]}
        consumer.assign(list(unread))
        for at in unread:
            consumer.seek(at, max(begins[at], since))
        while unread:
            for at, records in (await consumer.getmany(timeout_ms=PATIENCE_MS, max_records=AT_A_TIME)).items():
                for record in records:
                    if record.offset < ends[at]:
                        yield Entry(
                            record.topic,
                            record.partition,
                            record.offset,
                            record.timestamp,
                            record.key,
                            record.value,
                            tuple(record.headers),
                        )
            for at in list(unread):
                if await consumer.position(at) >= unread[at]:
                    del unread[at]
                    consumer.pause(at)
    finally:
        await consumer.stop()
