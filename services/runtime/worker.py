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

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import faust
import mode.loop
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from services.runtime import garbage
from services.runtime.keeper import FAILED_EXIT, FETCHED_RECORDS, Keeper, end
from services.runtime.pace import Pace
from services.runtime.redis_client import StoreRefused
from services.runtime.settings import Settings, SettingsRefused
from services.runtime.stages import Timer, stages_of, timers_of
from services.runtime.topics_admin import TopicsRefused

log = logging.getLogger(__name__)

OFFSETS_EVERY_SECONDS = LOOK_AT_REDIS_EVERY_SECONDS = 1.0


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
    keeper: Keeper

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
            end(FAILED_EXIT)
        await super().on_start()

    async def on_stop(self) -> None:
        await super().on_stop()
        await self.keeper.stop()


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
                end(FAILED_EXIT)

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
