"""Every published program version, kept by following the `programs` topic."""

import asyncio
import contextlib
import logging

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.events import ProgramPublished, UnknownType, Unreadable, parse_event
from schemas.programs import Programs
from schemas.topics import PROGRAMS
from services.runtime.settings import Settings

log = logging.getLogger(__name__)


class ProgramsFeed:
    """A reader of its own, outside of any consumer group: every process has every version."""

    def __init__(self, settings: Settings) -> None:
        self.programs = Programs()
        self._settings = settings
        self._consumer: AIOKafkaConsumer | None = None
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when every version that was published before is known; follows the topic from then on."""
        consumer = AIOKafkaConsumer(
            **self._settings.kafka_client_options(),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
        )
        await consumer.start()
        partitions = [TopicPartition(PROGRAMS.name, number) for number in range(self._settings.partitions)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        self._consumer = consumer
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
            await self._read(consumer)
        self._following = asyncio.create_task(self._follow(consumer))

    async def stop(self) -> None:
        if self._following:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following
        if self._consumer:
            await self._consumer.stop()

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            await self._read(consumer)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            for record in records:
                try:
                    event = parse_event(record.value)
                except (Unreadable, UnknownType):
                    log.error("a record of the programs topic is no program", extra={"offset": record.offset})
                    continue
                if isinstance(event.data, ProgramPublished):
                    self.programs.publish(event.data)
