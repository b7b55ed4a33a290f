"""Reading the log's partitions by position, outside of any consumer group."""

import asyncio
import contextlib
from collections import deque
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition

from services.runtime.header_names import accept_any_header_name
from services.runtime.settings import Settings
from services.runtime.stage import Record

FETCHED_RECORDS = 5_000
STOP_SECONDS = 5.0
accept_any_header_name()


def as_record(record: Any) -> Record:
    """A record of aiokafka's as the loop takes it."""
    return Record(
        record.topic, record.partition, record.offset, record.key, record.value, record.timestamp * 1000, record.headers
    )


class KafkaLogReader:
    """One partition number of several topics. See `recovery.LogReader`.

    One consumer; it fetches ahead on every topic that `seek` was called for.
    """

    def __init__(self, settings: Settings, topics: list[str], partition: int) -> None:
        self._tps = {topic: TopicPartition(topic, partition) for topic in topics}
        self._ahead: dict[str, deque[Record]] = {topic: deque() for topic in topics}
        self._consumer = AIOKafkaConsumer(
            **settings.kafka_client_options(),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_wait_ms=50,
            max_partition_fetch_bytes=2 * 1024 * 1024,
        )

    async def __aenter__(self) -> Self:
        await self._consumer.start()
        self._consumer.assign(list(self._tps.values()))
        self._consumer.pause(*self._tps.values())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A cancellation that aiokafka swallows, as it may when its connections break, would be waited for for ever.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._consumer.stop(), STOP_SECONDS)

    async def end(self, topic: str) -> int:
        tp = self._tps[topic]
        return int((await self._consumer.end_offsets([tp]))[tp])

    async def seek(self, topic: str, offset: int) -> None:
        self._ahead[topic].clear()
        self._consumer.seek(self._tps[topic], offset)
        self._consumer.resume(self._tps[topic])

    async def take(self, topic: str, upto: int) -> list[Record]:
        tp, ahead = self._tps[topic], self._ahead[topic]
        while not (ahead and ahead[-1].offset >= upto - 1) and await self._consumer.position(tp) < upto:
            for records in (await self._consumer.getmany(tp, timeout_ms=1000, max_records=FETCHED_RECORDS)).values():
                ahead.extend(as_record(record) for record in records)
        found = []
        while ahead and ahead[0].offset < upto:
            found.append(ahead.popleft())
        return found
