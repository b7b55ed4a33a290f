"""Writing commands to their topic: durable (acks=all) before anybody waits for a decision."""

import asyncio
import logging

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas.events import Event, event_json
from schemas.ids import partition_of
from schemas.topics import TOPIC_OF
from services.runtime.http.problems import unavailable
from services.runtime.settings import Settings

log = logging.getLogger(__name__)

TRIES = 2
TRY_SECONDS = 2.5  # a caller waits at most for two tries and one replacement


class CommandLog:
    """One idempotent producer for a service's command topic."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._replacing = asyncio.Lock()
        self._stopping: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connects. Errors: KafkaError where no broker answers."""
        self._producer = await self._connected()

    async def stop(self) -> None:
        if self._producer is not None:
            await self._producer.stop()
        await asyncio.gather(*self._stopping)

    async def write(self, command: Event, key: str) -> None:
        """Returns when the command is on the log, on all replicas.

        It is written again by a fresh producer when the first try fails: an idempotent producer that has lost its
        sequence never recovers, and a command written twice is decided once, by its command_id.
        Errors: Problem 503 when Kafka does not take it in time. It may be on the log all the same.
        """
        value, topic = event_json(command), TOPIC_OF[type(command.data)].name
        partition = partition_of(key, self._settings.partitions)
        for _ in range(TRIES):
            producer = self._producer
            if producer is None:
                raise unavailable()
            try:
                sending = producer.send_and_wait(topic, value, key=key.encode(), partition=partition)
                await asyncio.wait_for(sending, TRY_SECONDS)
            except (KafkaError, TimeoutError):
                log.warning("command not written, replacing the producer")
                await self._replace(producer)
            else:
                return
        raise unavailable()

    async def _replace(self, broken: AIOKafkaProducer) -> None:
        """A new producer instead of a broken one; once, however many writers have seen it break."""
        async with self._replacing:
            if self._producer != broken:
                return
            try:
                self._producer = await asyncio.wait_for(self._connected(), TRY_SECONDS)
            except (KafkaError, TimeoutError):
                return  # Kafka is away: keep the old one, whose next failure tries again
            stopping = asyncio.create_task(_stop(broken))
            self._stopping.add(stopping)
            stopping.add_done_callback(self._stopping.discard)

    async def _connected(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            **self._settings.kafka_client_options(),
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            request_timeout_ms=int(TRY_SECONDS * 1000),
        )
        try:
            await producer.start()
        except BaseException:
            await producer.stop()  # without this its connections stay open
            raise
        return producer


async def _stop(broken: AIOKafkaProducer) -> None:
    """Ends a broken producer beside the requests, which need not wait for it."""
    try:
        await asyncio.wait_for(broken.stop(), TRY_SECONDS)
    except (KafkaError, TimeoutError):
        log.warning("broken producer did not stop")
