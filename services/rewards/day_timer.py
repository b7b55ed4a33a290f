"""The timer of every rewards worker: says on `calendar` that a day has come that verifies a month.

It asks Redis which months are verified already, so an outage heals by itself, and no leader is needed: what two workers
say twice carries the same id and starts a month once. Before it says a day it waits until all records that are in the
topics have passed attribution and rewards, so that after an outage a month is not decided on half of its facts.
Errors: what is transient is tried again; anything else ends the worker.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError
from redis.exceptions import RedisError

from schemas.events import DayReached, Event, event_json
from schemas.ids import derived_id
from schemas.moments import micros
from schemas.programs import Programs
from schemas.topics import (
    ACTIVES,
    BINDINGS,
    CALENDAR,
    COMMANDS_ATTRIBUTION,
    CUSTOMERS,
    PARTNERS,
    PAYMENTS,
    REFERRALS,
)
from services.rewards.calendar import VerificationDay, monthly_programs, own_days, verification_day
from services.rewards.facts import Months
from services.rewards.people import PEOPLE
from services.rewards.verifications import VERIFICATIONS
from services.runtime.barrier import Step, ends_of, passed
from services.runtime.codec import Codec
from services.runtime.reader import Rebuilding
from services.runtime.redis_client import connect
from services.runtime.redis_reader import RedisReader
from services.runtime.settings import Settings

log = logging.getLogger(__name__)

TICK_SECONDS = 0.2
AGAIN_SECONDS = 15.0  # a day that was said and is not verified yet is said again after so long
RETRY_SECONDS = 1.0

CHAIN = (
    # The first readers of the platform's topics put wrongly keyed records back at the end: hence they come twice.
    Step(PAYMENTS.first_reader, (PAYMENTS.name,)),
    Step(CUSTOMERS.first_reader, (CUSTOMERS.name, COMMANDS_ATTRIBUTION.name)),
    Step(CUSTOMERS.first_reader, (CUSTOMERS.name, BINDINGS.name)),
    Step(PEOPLE.name, (CUSTOMERS.name, PAYMENTS.name, REFERRALS.name, PARTNERS.name)),
    Step(VERIFICATIONS.name, (PARTNERS.name,)),
    Step(PEOPLE.name, (ACTIVES.name,)),
)
"""Who must have folded what before a month may be decided."""


@dataclass(frozen=True, slots=True)
class Due:
    """A day that has come and whose month is not verified."""

    program_id: str
    day: VerificationDay


def due_days(programs: Programs, months: Mapping[str, Months], now: int) -> list[Due]:
    """The days to say now: of each program the earliest that the service verifies by itself, and those asked for.

    `months`: by program what the cell of its id knows. One day after the other, so that discounts lapse in their order.
    """
    found: list[Due] = []
    for program_id in monthly_programs(programs):
        known = months.get(program_id, Months())
        complete = {name for name, month in known.months.items() if month.is_complete}
        own = next(own_days(programs, program_id, now, complete), None)
        days = {day.month: day for day in (own, *asked_days(programs, program_id, known)) if day is not None}
        found += [Due(program_id, day) for _, day in sorted(days.items()) if day.as_of <= now]
    return found


def asked_days(programs: Programs, program_id: str, known: Months) -> list[VerificationDay]:
    """The days of the months that somebody waits for."""
    days = (
        verification_day(programs, program_id, name)
        for name, month in sorted(known.months.items())
        if month.asks and not month.is_complete
    )
    return [day for day in days if day is not None]


def days_reached(due: Due, partitions: int) -> list[Event]:
    """What is said of a day: one event for each partition."""
    return [
        Event(
            derived_id("day", due.program_id, due.day.date, partition),
            "/rewards",
            due.day.as_of,
            DayReached(program_id=due.program_id, date=due.day.date, partition=partition, partitions=partitions),
        )
        for partition in range(partitions)
    ]


class DayTimer:
    """Runs beside the cells. `programs`: every program version, as far as the worker has read."""

    def __init__(self, settings: Settings, programs: Callable[[], Programs]) -> None:
        self._settings, self._programs, self._codec = settings, programs, Codec.of(settings)
        self._said: dict[Due, float] = {}

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                await self._run()
            except (KafkaError, RedisError, Rebuilding, OSError, TimeoutError) as error:
                log.warning("the calendar waits", extra={"error": type(error).__name__})
            await asyncio.sleep(RETRY_SECONDS)

    async def _run(self) -> None:
        options = self._settings.kafka_client_options()
        producer = AIOKafkaProducer(**options, acks="all", enable_idempotence=True, request_timeout_ms=15_000)
        consumer = AIOKafkaConsumer(**options, group_id=None, enable_auto_commit=False)
        redis = connect(self._settings.redis_url())
        try:
            await producer.start()
            await consumer.start()
            while True:
                await self._tick(redis, producer, consumer)
                await asyncio.sleep(TICK_SECONDS)
        finally:
            await redis.aclose()
            await consumer.stop()
            await producer.stop()

    async def _tick(self, redis: object, producer: AIOKafkaProducer, consumer: AIOKafkaConsumer) -> None:
        programs = self._programs()
        reader = RedisReader(self._settings.partitions, redis, self._codec)  # type: ignore[arg-type]
        names = monthly_programs(programs)
        states = await reader.states(VERIFICATIONS, names)
        due = due_days(programs, dict(zip(names, states, strict=True)), micros(self._settings.now()))
        clock = asyncio.get_running_loop().time
        self._said = {each: at for each, at in self._said.items() if each in due}
        fresh = [each for each in due if each not in self._said or self._said[each] + AGAIN_SECONDS <= clock()]
        if not fresh:
            return

        await passed(redis, ends_of(consumer, self._settings.partitions), CHAIN, self._settings.partitions)
        for each in fresh:
            for event in days_reached(each, self._settings.partitions):
                await self._say(producer, event)
            self._said[each] = clock()

    async def _say(self, producer: AIOKafkaProducer, event: Event) -> None:
        data = event.data
        if isinstance(data, DayReached):
            key = CALENDAR.key(data).encode()
            await producer.send_and_wait(CALENDAR.name, event_json(event), key=key, partition=data.partition)
