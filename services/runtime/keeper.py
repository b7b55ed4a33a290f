"""The cells that a worker owns: taken over as partitions are assigned, folded and sent side by side, let go again.

Each has a queue of batches before it and a queue of outboxes behind it, so one batch is sent while the next is folded.
What is unexpected ends the process before its batch is committed; whoever owns the cell next goes on from Redis.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from faust.types import TP

from schemas.topics import JOURNALS, PROGRAMS
from services.runtime import recovery
from services.runtime.cache import Cache
from services.runtime.cell import Cell, GivenUp, LogBehind, Superseded
from services.runtime.codec import Codec
from services.runtime.faults import reach
from services.runtime.kafka_log import KafkaLogReader, as_record
from services.runtime.metrics import (
    BATCH_RECORDS,
    COMMIT_SECONDS,
    FOLD_SECONDS,
    LOST,
    OPENED,
    PUBLISH_SECONDS,
    REBUILT_RECORDS,
    Metrics,
)
from services.runtime.programs import ProgramsFeed
from services.runtime.redis_client import connect, refuse_unfit_store
from services.runtime.redis_store import RedisCellStore
from services.runtime.sender import Sender
from services.runtime.settings import Settings
from services.runtime.stage import Stage
from services.runtime.store import Commit, Fenced, Outgoing, Verdict, unless_it_passes
from services.runtime.topics_admin import concern, refuse_unfit_topics
from services.runtime.worker_health import serve
from services.runtime.worker_metrics import CellsShown

log = logging.getLogger(__name__)

FETCHED_RECORDS = 2_000
BUFFERED_BATCHES = 8
UNSENT_BATCHES = 2
STALLED_SECONDS = 120.0
REST = ""
FENCED_EXIT, FAILED_EXIT = 71, 70


def end(code: int) -> None:
    """End the process at once: the next owner starts from Redis, so nothing is lost."""
    logging.shutdown()
    os._exit(code)


def _end_taken_over(cell: Cell) -> None:
    log.warning("another owner has taken the cell over", extra={"cell": cell.name})
    end(FENCED_EXIT)


class _OpenCell:
    """A cell that this process owns: a queue of batches before it, a queue of outboxes behind it."""

    def __init__(self, keeper: "Keeper", cell: Cell, store: RedisCellStore) -> None:
        self._keeper, self.cell, self._store = keeper, cell, store
        self._batches: asyncio.Queue[tuple[str, list[Any]] | None] = asyncio.Queue()
        self._latest: tuple[str, list[Any]] | None = None
        self._unsent: asyncio.Queue[list[Outgoing] | None] = asyncio.Queue(UNSENT_BATCHES)
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False

    async def start(self, reader: recovery.LogReader, progress: Callable[[], None]) -> None:
        stage = self.cell.stage.name

        def folded_again(records: int) -> None:
            self._keeper.metrics[REBUILT_RECORDS].labels(stage).inc(records)
            progress()

        async def tell(outgoing: Sequence[Outgoing]) -> None:
            await self._keeper.sender.send(stage, outgoing)

        left = await recovery.opened(self.cell, reader, tell, folded_again)
        self.cell.opened_at = time.time_ns() // 1_000
        self._keeper.metrics[OPENED].labels(stage).inc()
        if left:
            await self._send(left)
        self._tasks = [
            asyncio.create_task(self._guard(self._fold_all())),
            asyncio.create_task(self._guard(self._send_all())),
        ]
        self.tell_news()

    async def is_whole(self) -> bool:
        """Whether Redis has what this process has committed; if so it is read. Errors: Fenced by a later owner."""
        return await self._store.whole(self.cell.epoch, self.cell.commits)

    def tell_news(self) -> None:
        """Let the cell fold the program versions that it has not folded yet, after the batches before it."""
        self._put(PROGRAMS.name, [])

    def let_rest(self) -> None:
        """Let the cell note that all was sent, if that is so by then and nothing else is to be done."""
        if not self.buffered:
            self._put(REST, [])

    def put(self, topic: str, records: list[Any]) -> None:
        """Fold these, too. What waits already takes them in where it can: a batch costs much, a record in it little, so
        a cell that is behind must not fold as many small ones as it was given."""
        if self._latest and self._latest[0] == topic and len(self._latest[1]) + len(records) <= FETCHED_RECORDS:
            self._latest[1].extend(records)
        else:
            self._put(topic, list(records))

    def _put(self, topic: str, records: list[Any]) -> None:
        self._latest = topic, records
        self._batches.put_nowait(self._latest)

    @property
    def buffered(self) -> int:
        return self._batches.qsize()

    async def close(self) -> None:
        """Finish the batch in hand, send what it decided, and let go; batches not begun are the next owner's.

        So is one that waits for the store: what it waits for may be a cell that is only opened after this.
        """
        self._closing = self.cell.let_go = True
        self._batches.put_nowait(None)
        await asyncio.gather(*self._tasks)

    async def _fold_all(self) -> None:
        while (taken := await self._batches.get()) and not self._closing:
            if taken is self._latest:
                self._latest = None
            topic, records = taken
            if topic == REST:
                outgoing = [] if self.buffered else await self.cell.rest()
            elif topic == PROGRAMS.name:
                outgoing = await self.cell.learn()
            else:
                outgoing = await self._fold(topic, records)
            if outgoing:
                await self._unsent.put(outgoing)
            self._keeper.made_room()
        await self._unsent.put(None)

    async def _fold(self, topic: str, records: list[Any]) -> list[Outgoing]:
        stage, metrics = self.cell.stage.name, self._keeper.metrics
        metrics[BATCH_RECORDS].labels(stage).observe(len(records))
        taken, began = [as_record(record) for record in records], time.time_ns()
        with metrics[FOLD_SECONDS].labels(stage).time():
            outgoing = await self.cell.fold(topic, taken)
        if self._keeper.spans:
            self._keeper.spans.folded(self.cell.name, taken, began, time.time_ns())
        return outgoing

    async def _send_all(self) -> None:
        while outgoing := await self._unsent.get():
            await self._send(outgoing)

    async def _send(self, outgoing: list[Outgoing]) -> None:
        stage = self.cell.stage.name
        with self._keeper.metrics[PUBLISH_SECONDS].labels(stage).time():
            await self._keeper.sender.send(stage, outgoing, self._confirm)
        reach("sent", stage)
        with contextlib.suppress(GivenUp):  # the next owner sends it again
            await self.cell.trim(outgoing)
        reach("trimmed", stage)

    async def _confirm(self, start: int, count: int) -> None:
        await recovery.confirm(self.cell, start, count, lambda: self._keeper.reader_of_journal(self.cell))

    async def _guard(self, work: Any) -> None:
        try:
            await work
        except GivenUp:
            await self._unsent.put(None)
        except Fenced:
            if await self._has_lost():
                self._closing = True
                await self._unsent.put(None)
                return self._keeper.open_anew(self.cell)
            _end_taken_over(self.cell)
        except Superseded:
            log.warning("another owner has claimed the cell", extra={"cell": self.cell.name})
            end(FENCED_EXIT)
        except asyncio.CancelledError:
            raise
        except BaseException:
            log.critical("the cell failed before its commit", extra={"cell": self.cell.name}, exc_info=True)
            end(FAILED_EXIT)

    async def _has_lost(self) -> bool:
        """Whether the fence was Redis' that lost data. A Redis that does not answer is for the next process to see."""
        with unless_it_passes(), contextlib.suppress(Fenced):
            return not await self.is_whole()
        return False


class _TimedStore(RedisCellStore):
    def __init__(self, redis: Any, stage: str, partition: int, metrics: Metrics) -> None:
        super().__init__(redis, stage, partition)
        self._seconds = metrics[COMMIT_SECONDS].labels(stage)

    async def commit(self, commit: Commit) -> Verdict:
        with self._seconds.time():
            return await super().commit(commit)


class Keeper:
    """The cells that this process owns at the moment. `is_open`: all that it was assigned, be it none."""

    def __init__(self, settings: Settings, stages: tuple[Stage[Any, Any], ...]) -> None:
        self._settings, self._stages = settings, stages
        self._by_topic = {
            topic.name: tuple(each for each in stages if topic in each.reads)
            for stage in stages
            for topic in stage.reads
        }
        self._redis, self._codec = connect(settings.redis_url()), Codec.of(settings)
        self._cells: dict[tuple[str, int], _OpenCell] = {}
        self._cache = Cache(settings.cache_mb)
        self._assigned: set[TP] = set()
        self._committed: dict[TP, int] = {}
        self.is_open = False
        self._room = asyncio.Event()
        self.metrics = Metrics("worker")
        for stage in stages:
            self.metrics[LOST].labels(stage.name)  # shown from 0 on: what begins at 1 is not seen to grow
        self.metrics.registry.register(CellsShown(self._open_cells, self._highwater))
        self.feed = ProgramsFeed(settings, heard=self._tell_news)
        self.sender = Sender(settings)
        self.spans = _spans(stages[0].service, settings)
        self.app: Any = None

    async def start(self) -> None:
        await refuse_unfit_store(self._redis, self._settings.partitions)
        await refuse_unfit_topics(self._settings, concern(self._stages[0].service, self._stages))
        serve(self._settings, self.metrics, lambda: self.is_open)
        await self.sender.start()
        await self.feed.start()

    async def stop(self) -> None:
        await self.sender.stop()
        await self.feed.stop()
        if self.spans:
            await asyncio.to_thread(self.spans.stop)
        await self._redis.aclose()

    def _open_cells(self) -> list[Cell]:
        return [opened.cell for opened in list(self._cells.values())]

    def _highwater(self, topic: str, partition: int) -> int | None:
        tp = TP(topic, partition)
        found: int | None = self.app.consumer.highwater(tp) if tp in self._assigned else None
        return found

    async def open(self, assigned: Iterable[TP]) -> None:
        """Take over the cells of the assigned partitions."""
        await self.close()
        self._assigned = {tp for tp in assigned if tp.topic in self._by_topic}
        try:
            await asyncio.gather(*(self._open(number) for number in sorted({tp.partition for tp in self._assigned})))
        except (Fenced, Superseded):
            log.warning("a cell that was being opened is another owner's, or Redis lost it again", exc_info=True)
            end(FENCED_EXIT)
        except Exception as error:
            log.critical("a cell could not be opened: %s", error, exc_info=not isinstance(error, LogBehind))
            end(FAILED_EXIT)
        self._committed = {}
        self.is_open = True
        self.made_room()
        if self._settings.ready_file:
            self._settings.ready_file.touch()

    async def _open(self, partition: int) -> None:
        """Open the cells of a partition number. A rebuild takes its time; what does not move at all is given up.

        Errors: TimeoutError then.
        """
        async with asyncio.timeout(STALLED_SECONDS) as patience:
            now = asyncio.get_running_loop().time
            await self._open_cells_of(partition, lambda: patience.reschedule(now() + STALLED_SECONDS))

    async def _open_cells_of(self, partition: int, progress: Callable[[], None]) -> None:
        """One after the other: they read the same topics."""
        topics = {topic.name for stage in self._stages for topic in (JOURNALS[stage.name], *stage.reads)}
        siblings = {stage.name: stage for stage in self._stages}
        async with KafkaLogReader(self._settings, sorted(topics), partition) as reader:
            for stage in self._stages:
                store = _TimedStore(self._redis, stage.name, partition, self.metrics)
                cell = Cell(
                    stage,
                    partition,
                    self._settings.partitions,
                    store,
                    lambda: self.feed.programs,
                    siblings,
                    self._codec,
                    clock_offset_seconds=self._settings.clock_offset,
                    cache=self._cache,
                )
                opened = _OpenCell(self, cell, store)
                await opened.start(reader, progress)
                self._cells[stage.name, partition] = opened
                progress()

    def reader_of_journal(self, cell: Cell) -> KafkaLogReader:
        return KafkaLogReader(self._settings, [JOURNALS[cell.stage.name].name], cell.partition)

    async def close(self) -> None:
        """Let go of every cell, each at the end of its batch."""
        self.is_open = False
        cells, self._cells = self._cells, {}
        self._assigned = set()
        await asyncio.gather(*(cell.close() for cell in cells.values()))
        self.made_room()

    def _tell_news(self) -> None:
        for cell in self._cells.values():
            cell.tell_news()

    def positions(self, partitions: Iterable[TP]) -> dict[TP, int]:
        """Where Redis says that reading goes on, for the partitions of cells that are open."""
        found = {}
        for tp in partitions:
            if cells := self._cells_of(tp.topic, tp.partition):
                found[tp] = min(each.cell.position(tp.topic) for each in cells)
        return found

    def _cells_of(self, topic: str, partition: int) -> list[_OpenCell]:
        named = ((stage.name, partition) for stage in self._by_topic.get(topic, ()))
        return [self._cells[name] for name in named if name in self._cells]

    def batches(self, fetched: Iterable[str]) -> int:
        """How many batches there are in fetches of these topics."""
        return sum(len(self._by_topic.get(topic, ())) for topic in fetched)

    def put(self, batch: list[Any]) -> None:
        """Give a fetched batch to its cells; one that was let go meanwhile is the next owner's."""
        topic, partition = batch[0].topic, batch[0].partition
        for cell in self._cells_of(topic, partition):
            cell.put(topic, batch)

    def made_room(self) -> None:
        self._room.set()

    async def room(self) -> None:
        """Wait until the cells have worked off enough for another fetch."""
        while sum(cell.buffered for cell in self._cells.values()) >= BUFFERED_BATCHES:
            self._room.clear()
            await self._room.wait()

    async def look_at_redis(self) -> None:
        """Open the cells anew when Redis has lost something of one; else let them be read there.

        One that is out of reach is looked at the next time: others may be on another server. Cells are let go before
        anybody else opens them, so one that has a later owner has it against the rules, and this process ends.
        """
        for opened in list(self._cells.values()):
            with unless_it_passes():
                try:
                    is_whole = await opened.is_whole()
                except Fenced:
                    if opened in self._cells.values():  # not let go meanwhile
                        _end_taken_over(opened.cell)
                    continue
                if not is_whole:
                    self.open_anew(opened.cell)
                    return

    def let_rest(self) -> None:
        for cell in self._cells.values():
            cell.let_rest()

    def open_anew(self, lost: Cell) -> None:
        """Ask for a rebalance: every cell of this process is let go, and opened by whoever gets it."""
        log.warning("Redis has lost commits of the cell", extra={"cell": lost.name})
        self.metrics[LOST].labels(lost.stage.name).inc()
        self.app.consumer._thread.rejoin()

    async def commit_offsets(self) -> None:
        """Tell the group how far Redis is."""
        moved = {tp: at for tp, at in self.positions(self._assigned).items() if self._committed.get(tp) != at and at}
        if moved and self.app.consumer and await self.app.consumer._thread.commit(moved):
            self._committed.update(moved)


def _spans(service: str, settings: Settings) -> Any:
    """Where traces go, if anywhere: the libraries are loaded by those workers alone that need them."""
    if not settings.otlp_url:
        return None
    from services.runtime.spans import Spans, to_collector

    return Spans(service, to_collector(settings.otlp_url))
