"""Every published program version, kept by following the `programs` topic."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from schemas.events import ProgramPublished, UnknownType, Unreadable, parse_event
from schemas.programs import Programs
from schemas.topics import PROGRAMS
from services.runtime.settings import Settings

log = logging.getLogger(__name__)

CATCH_UP_SECONDS = 2.0
_Ends = dict[TopicPartition, int]


class ProgramsFeed:
    """A reader of its own, outside of any consumer group: every process has every version.

    `heard`: called after versions that were published later became known.
    """

    def __init__(self, settings: Settings, heard: Callable[[], None] = lambda: None) -> None:
        self.programs = Programs()
        self._heard = heard
        self._read_to: dict[TopicPartition, int] = {}
        self._moved = asyncio.Event()
        self._settings = settings
        self._consumer: AIOKafkaConsumer | None = None
        self._looker: AIOKafkaConsumer | None = None
        """Asks where the topic ends. The broker answers a connection in order, so the reader's own would make the
        question wait for the fetch before it, which the broker keeps while there is nothing new."""
        self._following: asyncio.Task[None] | None = None
        self._asked: asyncio.Task[_Ends] | None = None
        self._next: asyncio.Task[_Ends] | None = None

    async def start(self) -> None:
        """Returns when every version that was published before is known; follows the topic from then on."""
        options = {**self._settings.kafka_client_options(), "group_id": None, "enable_auto_commit": False}
        self._looker = looker = AIOKafkaConsumer(**options)
        await looker.start()
        self._consumer = consumer = AIOKafkaConsumer(**options, auto_offset_reset="earliest", fetch_max_wait_ms=100)
        await consumer.start()
        partitions = _partitions(self._settings)
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await looker.end_offsets(partitions)
        while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
            await self._read(consumer)
        self._following = asyncio.create_task(self._follow(consumer))

    async def stop(self) -> None:
        if self._following:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following
        for client in (self._consumer, self._looker):
            if client:
                await client.stop()

    async def catch_up(self) -> None:
        """Returns when every version that is on the topic by now is known, or after 2 seconds.

        For an answer that must know what another answer has promised: one round trip to the broker, which all share
        who call before it begins.
        """
        if self._looker is None:
            return
        with contextlib.suppress(TimeoutError, KafkaError):
            async with asyncio.timeout(CATCH_UP_SECONDS):
                if self._next is None:
                    self._next = asyncio.create_task(self._ask(self._looker, self._asked))
                ends = await asyncio.shield(self._next)
                while any(self._read_to.get(partition, 0) < end for partition, end in ends.items()):
                    self._moved.clear()
                    await self._moved.wait()

    async def _ask(self, looker: AIOKafkaConsumer, before: "asyncio.Task[_Ends] | None") -> _Ends:
        """Where the topic ends. Asked once the question before is answered; who calls from then on asks anew."""
        if before:
            await asyncio.wait([before])
        self._asked, self._next = self._next, None
        ends: _Ends = await looker.end_offsets(_partitions(self._settings))
        return ends

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            if await self._read(consumer):
                self._heard()

    async def _read(self, consumer: AIOKafkaConsumer) -> bool:
        """Take in what the topic has next. Answers whether there was a version."""
        published = False
        for partition, records in (await consumer.getmany(timeout_ms=200)).items():
            for record in records:
                self._read_to[partition] = record.offset + 1
                try:
                    event = parse_event(record.value)
                except (Unreadable, UnknownType):
                    log.error("a record of the programs topic is no program", extra={"offset": record.offset})
                    continue
                if isinstance(event.data, ProgramPublished):
                    self.programs = self.programs.with_version(event.data)
                    published = True
            self._moved.set()
        return published


def _partitions(settings: Settings) -> list[TopicPartition]:
    return [TopicPartition(PROGRAMS.name, number) for number in range(settings.partitions)]
