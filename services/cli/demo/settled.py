"""Whether services have caught up with the log: exact, and cheap enough to ask several times a second."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from services.cli.service import Service
from services.runtime.redis_client import connect
from services.runtime.settings import Settings
from services.runtime.stages import stages_of
from services.runtime.store import tag


@dataclass(frozen=True, slots=True)
class Behind:
    """`records`: read by nobody yet, over all stages. `settled`: there are none, and none can come of what was read."""

    records: int
    settled: bool


class Watch:
    """Compares the cells' positions in Redis with the ends of their topics. An async context manager.

    `services`: those that are looked at.
    """

    def __init__(self, settings: Settings, services: Iterable[Service] = tuple(Service)) -> None:
        self._stages = [stage for service in services for stage in stages_of(service.value, settings)]
        self._partitions = range(settings.partitions)
        topics = {topic.name for stage in self._stages for topic in stage.reads}
        self._every = [TopicPartition(topic, partition) for topic in sorted(topics) for partition in self._partitions]
        self._redis = connect(settings.redis_url())
        self._consumer: Any = AIOKafkaConsumer(**settings.kafka_client_options(), enable_auto_commit=False)

    async def __aenter__(self) -> "Watch":
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()
        await self._redis.aclose()

    async def behind(self) -> Behind:
        """How much is still to be read.

        A cell says what it decided only after its position has moved. So nothing is on its way only where all outboxes
        were empty before the ends were asked for, and no cell had decided anything more after it.
        """
        before, unsent = await self._cells()
        ends = await self._consumer.end_offsets(self._every)
        after, still_unsent = await self._cells()
        records = sum(
            max(0, ends[TopicPartition(topic.name, partition)] - before[stage.name, partition].get(topic.name, 0))
            for stage in self._stages
            for partition in self._partitions
            for topic in stage.reads
        )
        return Behind(records, records == 0 and unsent == still_unsent == 0 and before == after)

    async def read(self) -> int:
        """How many records the cells have read, each all that it reads."""
        cells, _ = await self._cells()
        return sum(at for cell in cells.values() for name, at in cell.items() if name != "outbox")

    async def _cells(self) -> tuple[dict[tuple[str, int], dict[str, int]], int]:
        """Every cell's positions by topic (and how much it has ever sent), and how much is not sent yet."""
        names = [(stage.name, partition) for stage in self._stages for partition in self._partitions]
        async with self._redis.pipeline(transaction=False) as asking:
            for stage, partition in names:
                asking.hgetall(f"{tag(stage, partition)}:meta")
                asking.hlen(f"{tag(stage, partition)}:outbox")
            answers = await asking.execute()
        positions = {}
        for name, meta in zip(names, answers[::2], strict=True):
            told = {key.decode(): value for key, value in meta.items()}
            positions[name] = {
                key.removeprefix("position:"): int(value)
                for key, value in told.items()
                if key.startswith("position:") or key == "outbox"
            }
        return positions, sum(answers[1::2])
