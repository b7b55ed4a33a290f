"""Work on every cell of every service, in as many processes as there are cores."""

import asyncio
import multiprocessing
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, TypeVar

from schemas.topics import JOURNALS
from services.cli.service import Service
from services.runtime import garbage
from services.runtime.cell import Cell
from services.runtime.codec import Codec
from services.runtime.kafka_log import KafkaLogReader
from services.runtime.programs import ProgramsFeed
from services.runtime.redis_client import connect
from services.runtime.settings import Settings
from services.runtime.stage import Stage
from services.runtime.stages import stages_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bench:
    """What work on a cell needs. `partitions`: of every topic."""

    settings: Settings
    redis: Any
    reader: KafkaLogReader
    feed: ProgramsFeed
    siblings: dict[str, Stage[Any, Any]]
    stage: Stage[Any, Any]
    partition: int
    codec: Codec

    def cell(self, store: Any) -> Cell:
        return Cell(
            self.stage,
            self.partition,
            self.settings.partitions,
            store,
            lambda: self.feed.programs,
            self.siblings,
            self.codec,
            clock_offset_seconds=self.settings.clock_offset,
        )


Work = Callable[[Bench], Awaitable[T]]


def names(settings: Settings, services: Sequence[Service]) -> list[tuple[str, str, int]]:
    """The cells: service, stage and partition."""
    stages = [(service.value, stage.name) for service in services for stage in stages_of(service.value, settings)]
    return [(service, stage, number) for service, stage in stages for number in range(settings.partitions)]


def on_every_cell(settings: Settings, services: Sequence[Service], work: Work[T]) -> Iterator[tuple[str, T]]:
    """Each cell's name with what the work on it answers, as they end. `work`: a function of a module.

    Errors: the first of any cell; the others are given up.
    """
    cores = os.cpu_count() or 1
    with ProcessPoolExecutor(
        cores, mp_context=multiprocessing.get_context("spawn"), initializer=garbage.collect_seldom
    ) as pool:
        running = {
            pool.submit(_one, settings, work, service, stage, partition): f"{stage}:{partition}"
            for service, stage, partition in names(settings, services)
        }
        try:
            for done in as_completed(running):
                yield running[done], done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _one(settings: Settings, work: Work[T], service: str, stage: str, partition: int) -> T:
    return asyncio.run(_with_bench(settings, work, service, stage, partition))


async def _with_bench(settings: Settings, work: Work[T], service: str, stage: str, partition: int) -> T:
    siblings = {each.name: each for each in stages_of(service, settings)}
    topics = [JOURNALS[stage].name, *(topic.name for topic in siblings[stage].reads)]
    redis, feed = connect(settings.redis_url()), ProgramsFeed(settings)
    await feed.start()
    try:
        async with KafkaLogReader(settings, topics, partition) as reader:
            codec = Codec.of(settings)
            return await work(Bench(settings, redis, reader, feed, siblings, siblings[stage], partition, codec))
    finally:
        await feed.stop()
        await redis.aclose()
