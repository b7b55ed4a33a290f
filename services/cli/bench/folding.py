"""Watching workers fold what was published: how much is readable when, what it costs, and when all of it is done."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.topics import Topic
from services.cli.bench.lab import Lab
from services.cli.bench.usage import Used
from services.cli.demo.settled import Watch
from services.cli.service import Service
from services.local.refusal import StackRefused
from services.runtime.settings import Settings

LOOK_SECONDS, PARTITIONS_A_LOOK = 0.1, 8
"""The more partitions, the more a look asks of Redis: beyond so many it looks less often."""
STUCK_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Sample:
    """`at`: seconds of the monotonic clock. `readable`: records on the topics that are watched; `unread`: what the
    folding services have before them."""

    at: float
    readable: int
    unread: int
    used: Used


@dataclass(slots=True)
class Folded:
    """From the first record that a worker could consume (`began`) to the last output and the last state in Redis."""

    began: float
    samples: list[Sample] = field(default_factory=list)

    @property
    def first(self) -> Sample:
        return max((s for s in self.samples if s.at <= self.began), key=lambda s: s.at, default=self.samples[0])

    @property
    def last(self) -> Sample:
        """The first look that found all as it then stayed."""
        final = self.samples[-1]
        last = final
        for sample in reversed(self.samples):
            if (sample.readable, sample.unread) != (final.readable, final.unread):
                break
            last = sample
        return last

    @property
    def seconds(self) -> float:
        return self.last.at - self.began

    @property
    def cpu_seconds(self) -> dict[str, float]:
        return self.last.used.since(self.first.used)

    @property
    def peak_memory_mb(self) -> dict[str, float]:
        names = {name for sample in self.samples for name in sample.used.memory_mb}
        return {name: round(max(s.used.memory_mb.get(name, 0.0) for s in self.samples), 1) for name in sorted(names)}

    @property
    def others_cpu_seconds(self) -> float:
        """What the machine spent on anything that is not counted here; the watching itself is in it."""
        return self.last.used.busy - self.first.used.busy - sum(self.cpu_seconds.values())

    @property
    def over_time(self) -> list[tuple[float, int]]:
        """Seconds since the beginning, records readable by then: one a second."""
        base, found = self.first.readable, [(0.0, 0)]
        for sample in self.samples:
            second = sample.at - self.began
            if second >= len(found) and sample.at < self.last.at:
                found.append((round(second, 2), sample.readable - base))
        return [*found, (round(self.seconds, 2), self.last.readable - base)]

    def warm_rate(self, count: int) -> float:
        """`count` a second, over the second half of what became readable."""
        base, final = self.first.readable, self.last.readable
        half = next(s for s in self.samples if s.readable - base >= (final - base) / 2)
        share = (final - half.readable) / max(1, final - base)
        return count * share / max(LOOK_SECONDS, self.last.at - half.at)


class Output:
    """How many records of some topics are readable. An async context manager."""

    def __init__(self, settings: Settings, *topics: Topic) -> None:
        self._at = [TopicPartition(topic.name, number) for topic in topics for number in range(settings.partitions)]
        self._consumer: Any = AIOKafkaConsumer(
            **settings.kafka_client_options(), enable_auto_commit=False, isolation_level="read_committed"
        )

    async def __aenter__(self) -> "Output":
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def readable(self) -> int:
        return sum(await self.readable_each())

    async def readable_each(self) -> list[int]:
        """By partition."""
        ends = await self._consumer.end_offsets(self._at)
        return [ends[at] for at in self._at]

    async def values(self) -> list[bytes]:
        """All that is there, each partition in its order."""
        ends = await self._consumer.end_offsets(self._at)
        self._consumer.assign(self._at)
        await self._consumer.seek_to_beginning(*self._at)
        found: list[bytes] = []
        while any([await self._consumer.position(at) < ends[at] for at in self._at]):
            for records in (await self._consumer.getmany(timeout_ms=500, max_records=10_000)).values():
                found += [record.value for record in records if record.value is not None]
        return found


async def until_folded(
    lab: Lab,
    services: Iterable[Service],
    topics: Sequence[Topic],
    started: Callable[[], float | None],
    each: Callable[[Sample], None] = lambda sample: None,
) -> Folded:
    """Look until the services have folded all that is published and `topics` hold all that comes of it.

    `started`: for how many seconds a worker can have consumed by now, None while it cannot; the clock starts when it
    first can. `each` is called with every look. Errors: StackRefused when a process ends, or nothing moves for a while.
    """
    folded, moved = Folded(began=float("inf")), time.monotonic()
    look_seconds = LOOK_SECONDS * max(1, lab.settings.partitions / PARTITIONS_A_LOOK)
    async with Output(lab.settings, *topics) as output, Watch(lab.settings, services) as watch:
        while True:
            now = time.monotonic()
            if folded.began > now and (ago := started()) is not None:
                folded.began = now - ago
            behind = await watch.behind()
            sample = Sample(now, await output.readable(), behind.records, lab.usage.look())
            before = folded.samples[-1] if folded.samples else sample
            folded.samples.append(sample)
            each(sample)
            if behind.settled and folded.began < now:
                return folded
            if (sample.readable, sample.unread) != (before.readable, before.unread):
                moved = now
            if now - moved > STUCK_SECONDS:
                raise StackRefused(f"nothing moves for {STUCK_SECONDS:.0f} s, {sample.unread} records are unread")
            lab.refuse_dead()
            await asyncio.sleep(max(0.0, look_seconds - (time.monotonic() - now)))
