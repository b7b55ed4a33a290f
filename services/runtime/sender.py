"""Sending an outbox to Kafka: idempotent, acks=all, whole batches, in order per partition, its journal entries first.

What has been said must have its entry: a cell whose Redis is lost folds again what the journal tells, and nothing else.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas.topics import JOURNALS
from services.runtime.faults import reach
from services.runtime.settings import Settings
from services.runtime.store import Outgoing

log = logging.getLogger(__name__)

Journaled = Callable[[int, int], Awaitable[None]]
"""Told where journal entries stand, before what they tell of is sent: the first one's offset (-1: not known), how many.
May raise, so that nothing more is sent."""

LINGER_MS = 5
"""So that what several cells send at a time is one request."""
AT_ONCE = 8
"""How many cells send at a time what they say. The client takes one batch of a partition after the other: were all
cells of a process with many partitions to queue there, the last would wait as if the brokers did not answer."""
ATTEMPTS = 4
DEADLINE_SECONDS = 20.0


class Sender:
    """Sends records and returns when the brokers have them all. One per process, shared by its cells."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: Any = None
        self._renewing = asyncio.Lock()
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def start(self) -> None:
        self._producer = self._new_producer()
        await self._producer.start()

    async def stop(self) -> None:
        if self._producer:
            await self._producer.stop()

    def _new_producer(self) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            **self._settings.kafka_client_options(),
            acks="all",
            enable_idempotence=True,
            linger_ms=LINGER_MS,
            max_batch_size=512 * 1024,
            max_request_size=4 * 1024 * 1024,
            request_timeout_ms=15_000,
        )

    async def send(self, stage: str, records: Sequence[Outgoing], journaled: Journaled | None = None) -> None:
        """Send all of `records`; on return they are durable.

        A producer that failed may be stuck for good after an out-of-order answer, so a new one sends everything again:
        receivers drop the numbers they have seen. Errors: the last one, after a few attempts; those of `journaled`.
        One that another cell has replaced meanwhile, and so stopped, says nothing about this attempt.
        """
        failed = 0
        while True:
            producer = self._producer
            try:
                return await self._send_all(producer, stage, records, journaled)
            except (KafkaError, TimeoutError) as error:
                failed += self._producer is producer
                if failed == ATTEMPTS:
                    raise
                log.warning("sending again with a new producer", extra={"stage": stage, "error": type(error).__name__})
                await self._renew(producer)

    async def _renew(self, failed: AIOKafkaProducer) -> None:
        async with self._renewing:
            if self._producer is not failed:
                return  # another cell has replaced it already
            fresh = self._new_producer()
            await fresh.start()
            self._producer = fresh
            try:
                await asyncio.wait_for(failed.stop(), 5)
            except (KafkaError, TimeoutError):
                log.warning("a failed producer did not stop cleanly")

    async def _send_all(
        self, producer: AIOKafkaProducer, stage: str, records: Sequence[Outgoing], journaled: Journaled | None
    ) -> None:
        own = JOURNALS[stage].name
        entries = [record for record in records if record.topic == own]
        placed = await self._send_topics(producer, stage, entries)
        if journaled and entries:
            starts = [batch.offset for batch in placed]
            await journaled(-1 if None in starts else min(starts), len(entries))
        reach("journaled", stage)
        async with self._turns:
            await self._send_topics(producer, stage, [record for record in records if record.topic != own])

    async def _send_topics(self, producer: AIOKafkaProducer, stage: str, records: Sequence[Outgoing]) -> list[Any]:
        """Answers where each batch stands: its partition and first offset. Errors: TimeoutError after the deadline."""
        groups: dict[tuple[str, int], list[Outgoing]] = {}
        for record in records:
            groups.setdefault((record.topic, record.partition), []).append(record)
        waiting: list[asyncio.Future[Any]] = []
        async with asyncio.timeout(DEADLINE_SECONDS):
            for number, ((topic, partition), group) in enumerate(groups.items()):
                if number == len(groups) // 2 and topic != JOURNALS[stage].name:
                    reach("half_sent", stage)
                waiting += [
                    await producer.send_batch(batch, topic, partition=partition) for batch in _batches(producer, group)
                ]
            return await asyncio.gather(*waiting)


def _batches(producer: AIOKafkaProducer, group: Sequence[Outgoing]) -> list[Any]:
    batches = [producer.create_batch()]
    for record in group:
        parts = {"key": record.key, "value": record.value, "headers": list(record.headers), "timestamp": None}
        if batches[-1].append(**parts) is None:
            batches[-1].close()
            batches.append(producer.create_batch())
            if batches[-1].append(**parts) is None:
                raise ValueError(f"a record of {len(record.value or b'')} bytes does not fit into a batch")
    batches[-1].close()
    return batches
