"""Waiting until every record that is in the topics now has passed the services that lead to a decision.

A chain of steps, each a stage and topics that it reads: the ends of the topics are taken, the stage's positions in
Redis must reach them, and what its cells had decided by then must have been sent. Then the ends of the next step hold
all that followed. Nothing is stopped meanwhile: records that arrive later may pass as well.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from services.runtime.store import tag

LOOK_SECONDS = 0.02
LAST_LOOK_SECONDS = 0.5

Ends = Callable[[Iterable[str]], Awaitable[Mapping[tuple[str, int], int]]]
"""The end offsets of topics, by topic and partition."""


def ends_of(consumer: AIOKafkaConsumer, partitions: int) -> Ends:
    """The ends as a started consumer is told them, of so many partitions of each topic."""

    async def ends(topics: Iterable[str]) -> Mapping[tuple[str, int], int]:
        found = await consumer.end_offsets([TopicPartition(topic, at) for topic in topics for at in range(partitions)])
        return {(at.topic, at.partition): offset for at, offset in found.items()}

    return ends


@dataclass(frozen=True, slots=True)
class Step:
    """A stage, by name, and the topics whose records it must have folded."""

    stage: str
    topics: tuple[str, ...]


async def passed(redis: Any, ends: Ends, steps: Sequence[Step], partitions: int) -> None:
    """Return when the records that are in the topics now have passed all steps, in their order.

    It waits as long as it takes: a stage that is down holds it up. Errors: those of Redis and Kafka.
    """
    for step in steps:
        wanted = await ends(step.topics)
        cells = [tag(step.stage, partition) for partition in range(partitions)]
        decided = [
            await _folded(redis, cell, {topic: wanted[topic, partition] for topic in step.topics})
            for partition, cell in enumerate(cells)
        ]
        for cell, number in zip(cells, decided, strict=True):
            await _sent(redis, cell, number)


async def _folded(redis: Any, cell: str, ends: Mapping[str, int]) -> int:
    """Wait until the cell's positions are at the ends; answers the number of its latest outgoing record then."""
    names = [*(f"position:{topic}" for topic in ends), "outbox"]
    pause = LOOK_SECONDS
    while True:
        *positions, outbox = (int(value or 0) for value in await redis.hmget(f"{cell}:meta", names))
        if all(position >= end for position, end in zip(positions, ends.values(), strict=True)):
            return outbox
        await asyncio.sleep(pause)
        pause = min(LAST_LOOK_SECONDS, pause * 1.5)


async def _sent(redis: Any, cell: str, number: int) -> None:
    """Wait until the cell has sent its outgoing records up to a number."""
    pause = LOOK_SECONDS
    while any(int(waiting) <= number for waiting in await redis.hkeys(f"{cell}:outbox")):
        await asyncio.sleep(pause)
        pause = min(LAST_LOOK_SECONDS, pause * 1.5)
