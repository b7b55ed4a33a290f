"""A service's worker: Faust assigns partitions and fetches, the cells do the rest.

What is Faust's here: membership, assignment, rebalance, fetching, signals and shutdown. What is not, and why:
- *One event per fetch and partition.* Faust spends some 200 µs on an event; its public setting `ConsumerScheduler` lets
  the whole fetched batch travel as one event.
- *Seeking.* Positions come from Redis, given where Faust asks for the committed ones (`seek_to_committed`).
- *Offsets.* Topics are declared without acks, so Faust commits nothing; the positions are committed to the group after
  they are in Redis, for lag monitoring and autoscaling alone.
- *Assignment.* Kafka's range assignor, which gives a member the same partition numbers of all topics: whole cells.
- *Topics of several stages.* A batch goes to every stage of the service that reads its topic; reading goes on from the
  least of their positions, and each drops what it has folded.
- *Redis that loses data.* A worker looks every second whether Redis has what it committed. Where Redis was emptied or
  restored from a copy, the worker asks the group for a rebalance: cells are opened anew and fold again what is lacking.
- *Timers.* What a service does by the clock (`timers` of its package) runs beside the cells, in every worker.
- *Exceptions.* None leaves an agent: Faust would go on behind the failed batch. Anything unexpected ends the process,
  before its batch is committed.
"""

import asyncio
import contextlib
import importlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import faust
import mode.loop
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from redis.exceptions import AuthenticationError, ResponseError

from schemas.programs import Programs
from schemas.topics import JOURNALS, PROGRAMS
from services.runtime import garbage, recovery
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
from services.runtime.pace import Pace
from services.runtime.programs import ProgramsFeed
from services.runtime.redis_client import connect, servers_of, to
from services.runtime.redis_store import RedisCellStore
from services.runtime.sender import Sender
from services.runtime.settings import Settings, SettingsRefused
from services.runtime.stage import Stage
from services.runtime.store import Commit, Fenced, Outgoing, Verdict, unless_it_passes
from services.runtime.topics_admin import TopicsRefused, concern, refuse_unfit_topics
from services.runtime.worker_health import serve
from services.runtime.worker_metrics import CellsShown

log = logging.getLogger(__name__)

FETCHED_RECORDS = 2_000
BUFFERED_BATCHES = 8
UNSENT_BATCHES = 2
STALLED_SECONDS = 120.0
OFFSETS_EVERY_SECONDS = LOOK_AT_REDIS_EVERY_SECONDS = 1.0
REST = ""
FENCED_EXIT, FAILED_EXIT = 71, 70


class _Fetched:
    """All records that one fetch brought of one partition, in the shape of a single record of Faust's."""

    __slots__ = ("checksum", "headers", "key", "offset", "partition", "timestamp", "timestamp_type", "topic", "value")
    serialized_key_size = serialized_value_size = 0

    def __init__(self, records: list[Any]) -> None:
        last = records[-1]
        self.topic, self.partition, self.offset = last.topic, last.partition, last.offset
        self.timestamp, self.timestamp_type = last.timestamp, last.timestamp_type
        self.headers, self.key, self.checksum = (), None, None
        self.value = records


class _WholeFetches:
    """Faust's scheduling strategy: one event per partition and fetch."""

    def iterate(self, records: Mapping[TP, list[Any]]) -> Iterator[tuple[TP, _Fetched]]:
        for partition, batch in records.items():
            if batch:
                yield partition, _Fetched(batch)


class _ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._partition_assignment_strategy = (RangePartitionAssignor,)
        return consumer

    async def on_start(self) -> None:
        await super().on_start()
        self.pace = Pace(self._consumer._fetcher)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        # Opening the cells may take long (a rebuild), and aiokafka would only send heartbeats again after it.
        self._consumer._coordinator._start_heartbeat_task()
        await super().on_partitions_assigned(assigned, generation_id)

    def rejoin(self) -> None:
        """Ask the group for a rebalance."""
        self.thread_loop.call_soon_threadsafe(self._consumer._coordinator.request_rejoin)


class _Consumer(driver.Consumer):  # type: ignore[misc]
    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        await self.app.keeper.open(assigned)
        await super().on_partitions_assigned(assigned, generation_id)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        await self.app.keeper.close()
        await super().on_partitions_revoked(revoked)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        kafka = dict(await super().seek_to_committed())
        ours = self.app.keeper.positions(kafka)
        if ours:
            await self.seek_wait(ours)
        return {**kafka, **ours}

    async def _getmany(self, active_partitions: Any, timeout: float) -> Any:  # noqa: ASYNC109 (Faust's signature)
        await self.app.keeper.room()
        records = await super()._getmany(active_partitions, timeout)
        if records:
            self._thread.pace.fetched(self.app.keeper.batches(tp.topic for tp in records))
        return records

    async def on_stop(self) -> None:
        await self.app.keeper.close()
        await self.app.keeper.commit_offsets()
        await super().on_stop()


class _Transport(driver.Transport):  # type: ignore[misc]
    Consumer = _Consumer


class _App(faust.App):  # type: ignore[misc]
    keeper: "Keeper"

    def _new_transport(self) -> Any:
        return _Transport(self.conf.broker_consumer, self)

    def _create_directories(self) -> None:
        """None: they are for tables, and there are no tables."""

    async def on_start(self) -> None:
        try:
            await self.keeper.start()
        except Exception as error:
            is_told = isinstance(error, SettingsRefused | StoreRefused | TopicsRefused)
            log.critical("the worker could not start: %s", error, exc_info=not is_told)
            _end(FAILED_EXIT)
        await super().on_start()

    async def on_stop(self) -> None:
        await super().on_stop()
        await self.keeper.stop()


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
        """Whether Redis has what this process has committed, or it is another owner's cell by now; if so it is read."""
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
            log.warning("another owner has taken the cell over", extra={"cell": self.cell.name})
            _end(FENCED_EXIT)
        except Superseded:
            log.warning("another owner has claimed the cell", extra={"cell": self.cell.name})
            _end(FENCED_EXIT)
        except asyncio.CancelledError:
            raise
        except BaseException:
            log.critical("the cell failed before its commit", extra={"cell": self.cell.name}, exc_info=True)
            _end(FAILED_EXIT)

    async def _has_lost(self) -> bool:
        """Whether the fence was Redis' that lost data. A Redis that does not answer is for the next process to see."""
        with unless_it_passes():
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
            _end(FENCED_EXIT)
        except Exception as error:
            log.critical("a cell could not be opened: %s", error, exc_info=not isinstance(error, LogBehind))
            _end(FAILED_EXIT)
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

        One that is out of reach is looked at the next time: others may be on another server.
        """
        for opened in list(self._cells.values()):
            with unless_it_passes():
                if not await opened.is_whole():
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


def _end(code: int) -> None:
    """End the process at once: the next owner starts from Redis, so nothing is lost."""
    logging.shutdown()
    os._exit(code)


class StoreRefused(Exception):
    """This Redis must not hold the state: the message names why, and the cure."""


async def refuse_unfit_store(redis: Any, partitions: int) -> None:
    """Refuse a Redis that evicts keys, or whose state was made with another partition count. Errors: StoreRefused.

    So is one that does not let us in. One that persists nothing is only a warning: what it loses is folded again, which
    takes time and no money.
    """
    try:
        memories = [(server, await redis.info("memory", **to(server))) for server in await servers_of(redis)]
    except (AuthenticationError, ResponseError) as error:
        raise StoreRefused(
            f"Redis does not let us in ({error}): name in REFSTREAM_REDIS a user and a password that it knows, "
            f"redis://USER:PASSWORD@HOST:PORT/0"  # pragma: allowlist secret
        ) from None
    for server, memory in memories:
        at, policy = f" at {server.name}" if server else "", memory.get("maxmemory_policy", "noeviction")
        if memory.get("maxmemory") and policy != "noeviction":
            raise StoreRefused(f"Redis{at} evicts keys ({policy}): set maxmemory-policy noeviction")
        if not (await redis.info("persistence", **to(server))).get("aof_enabled", 1):
            log.warning("Redis%s keeps no append-only file, so a restart of it costs a rebuild: set appendonly yes", at)
    await redis.set("refstream:partitions", partitions, nx=True)
    known = int(await redis.get("refstream:partitions"))
    if known != partitions:
        raise StoreRefused(
            f"REFSTREAM_PARTITIONS is {partitions}, but the state in Redis was made with {known}: "
            f"set it back to {known}, or move to new topics and replay"
        )


def stages_of(service: str, settings: Settings) -> tuple[Stage[Any, Any], ...]:
    """The stages of a service, from its package."""
    stages: tuple[Stage[Any, Any], ...] = importlib.import_module(f"services.{service}").stages(settings)
    return stages


Timer = Callable[[], Awaitable[None]]


def timers_of(service: str, settings: Settings, programs: Callable[[], Programs]) -> tuple[Timer, ...]:
    """What a service does by the clock, if anything: coroutine functions that run until they are cancelled."""
    offered = getattr(importlib.import_module(f"services.{service}"), "timers", None)
    timers: tuple[Timer, ...] = offered(settings, programs) if offered else ()
    return timers


def build_app(service: str, settings: Settings) -> Any:
    """The Faust app of a service's worker."""
    stages = stages_of(service, settings)
    app = _App(
        service,
        broker=[f"kafka://{address}" for address in settings.kafka_bootstrap().split(",")],
        key_serializer="raw",
        value_serializer="raw",
        ConsumerScheduler=_WholeFetches,
        stream_wait_empty=False,
        table_standby_replicas=0,
        topic_allow_declare=False,
        topic_disable_leader=True,
        broker_session_timeout=settings.session_seconds,
        broker_heartbeat_interval=settings.session_seconds / 5,
        broker_max_poll_records=FETCHED_RECORDS,
        broker_commit_livelock_soft_timeout=1e9,
        stream_processing_timeout=1e9,
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
        worker_redirect_stdouts=False,
    )
    keeper = app.keeper = Keeper(settings, stages)
    keeper.app = app

    names = sorted({topic.name for stage in stages for topic in stage.reads})
    channel = app.topic(*names, key_type=bytes, value_type=bytes, acks=False)

    @app.agent(channel, name=service)  # type: ignore[untyped-decorator]
    async def fold(stream: Any) -> None:
        async for batch in stream:
            keeper.put(batch)

    def run(timer: Timer) -> None:
        @app.task  # type: ignore[untyped-decorator]
        async def beside_the_cells() -> None:
            try:
                await timer()
            except Exception:
                log.critical("a timer failed", extra={"service": service}, exc_info=True)
                _end(FAILED_EXIT)

    for timer in timers_of(service, settings, lambda: keeper.feed.programs):
        run(timer)

    @app.task  # type: ignore[untyped-decorator]
    async def look_at_redis() -> None:
        while not app.should_stop:
            await app.sleep(LOOK_AT_REDIS_EVERY_SECONDS)
            await keeper.look_at_redis()
            keeper.let_rest()

    @app.task  # type: ignore[untyped-decorator]
    async def commit_offsets() -> None:
        while not app.should_stop:
            await app.sleep(OFFSETS_EVERY_SECONDS)
            await keeper.commit_offsets()

    return app


def run_worker(service: str, settings: Settings) -> None:
    """Run a service's worker until SIGTERM, which hands its cells over."""
    settings.require_production_secrets()
    mode.loop.use("uvloop")
    app = build_app(service, settings)
    garbage.collect_seldom()
    worker = faust.Worker(app, loglevel=settings.log_level, redirect_stdouts=False)
    worker.spinner = None  # it would turn with every message, those of DEBUG too, which are all written for it
    worker.execute_from_commandline()
