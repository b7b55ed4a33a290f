"""Golden journeys on real Kafka: publishing them, waiting until all is folded, and what must have come out."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from redis.exceptions import RedisError

from schemas.events import Event, event_json
from schemas.ids import partition_of
from schemas.topics import JOURNALS, TOPIC_OF, TOPICS, Topic
from services.rewards.verifications import VERIFICATIONS
from services.runtime.codec import Codec
from services.runtime.lag import lags
from services.runtime.reader import Rebuilding
from services.runtime.redis_client import connect
from services.runtime.redis_reader import RedisReader
from services.runtime.settings import Settings
from services.runtime.stages import stages_of
from tests.journey import Journey, matches, missing

SERVICES = ("attribution", "commission", "rewards", "payouts")
EVENTS = [topic for topic in TOPICS if topic not in JOURNALS.values()]
"""Where nothing is added when all is folded; a journal gets a note that all was sent a moment later."""


@dataclass(frozen=True)
class Played:
    """What the log holds: every topic's records, and every output event once."""

    records: dict[str, list[Any]]
    events: list[dict[str, Any]]


Get = Callable[..., Any]
"""The JSON of a path that is asked for as an admin."""


Send = Callable[[Settings, Sequence[Sequence[Event]]], None]
"""Publishes what several journeys say in one phase; each one's events stay in their order."""


def one_after_another(settings: Settings, phases: Sequence[Sequence[Event]]) -> None:
    asyncio.run(publish(settings, [event for phase in phases for event in phase]))


def play(settings: Settings, played: Sequence[Journey], seconds: float = 60, send: Send = one_after_another) -> Played:
    """Publish journeys at once, phase by phase, each folded within `seconds`; answers every topic's records."""
    for phases in zip_longest(*(list(journey.phases()) for journey in played), fillvalue=[]):
        send(settings, phases)
        asyncio.run(settle(settings, seconds))
    records = asyncio.run(read(settings))
    return Played(records, said(records))


def check(journey: Journey, played: Played, get: Get) -> None:
    """That everything which a journey expects came out, nothing else of what it names, and the balances."""
    events = played.events
    assert missing(journey.expected("out"), events) == []
    for unwanted in journey.expected("none"):
        assert [event for event in events if matches(unwanted, event)] == []
    letters = [
        {name: value.decode() for name, value in record.headers}
        for record in played.records["dead-letters"]
        if journey.name.encode() in (record.value or b"")
    ]
    for letter in journey.expected("dead"):
        assert any(matches(letter, headers) for headers in letters), letter
    for wanted in journey.expected("balance"):
        _check_balance(get, dict(wanted))
    for wanted in journey.expected("wallet"):
        query = {"as_of": wanted["as_of"]} if "as_of" in wanted else {}
        shown = get(f"/rewards/partners/{wanted['partner_id']}/wallet", **query)
        assert shown["credits"] == wanted["credits"]


def _check_balance(get: Get, wanted: dict[str, Any]) -> None:
    partner_id, program_id, currency = (str(wanted.pop(name)) for name in ("partner_id", "program_id", "currency"))
    query = {"as_of": wanted.pop("as_of")} if "as_of" in wanted else {}
    books = get(f"/payouts/partners/{partner_id}/balance", **query)["balances"]
    (book,) = [book for book in books if (book["program_id"], book["currency"]) == (program_id, currency)]
    assert {name: book[name]["minor"] for name in wanted} == wanted


def outputs() -> list[str]:
    return [topic.name for topic in TOPICS if not topic.internal and topic.writer not in ("platform", "every service")]


def said(records: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Every output event once: what is sent again after a crash is the same, byte for byte."""
    found: dict[str, bytes] = {}
    for topic in outputs():
        for record in records[topic]:
            event_id = orjson.loads(record.value)["id"]
            assert found.setdefault(event_id, record.value) == record.value, event_id
    return [orjson.loads(value) for value in found.values()]


async def publish(settings: Settings, events: list[Event], seconds: float = 60) -> None:
    """Write the events in their order; again from the one that failed, where Kafka was down meanwhile."""
    deadline = time.monotonic() + seconds
    left = list(events)
    while left:
        producer = AIOKafkaProducer(**settings.kafka_client_options(), acks="all", enable_idempotence=True)
        try:
            await producer.start()
            while left:
                topic = TOPIC_OF[type(left[0].data)]
                key = topic.key(left[0].data)
                partition = partition_of(key, settings.partitions)
                await producer.send_and_wait(topic.name, event_json(left[0]), key=key.encode(), partition=partition)
                del left[0]
        except KafkaError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)
        finally:
            await producer.stop()


async def settle(settings: Settings, seconds: float = 60) -> None:
    """Wait until no service is behind, and nothing has been added meanwhile."""
    reads = {
        service: {topic.name for stage in stages_of(service, settings) for topic in stage.reads} for service in SERVICES
    }
    deadline, before = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        try:
            behind = sum(row.lag for row in await lags(settings, reads))
            ends = await _ends(settings, EVENTS)
            if not behind and ends == before and not await _somebody_waits(settings):
                return
            before = ends
        except (KafkaError, RedisError, Rebuilding, OSError, asyncio.CancelledError):
            # A server that is down or has just been replaced, as some tests have it; a consumer that stops then may
            # pass on its own cancelling.
            before = None
        await asyncio.sleep(0.2)
    raise AssertionError("the services never caught up")


async def _somebody_waits(settings: Settings) -> bool:
    """Whether a month that was asked for is not verified yet: a worker's timer sets that going, no record."""
    redis = connect(settings.redis_url())
    try:
        states = RedisReader(settings.partitions, redis, Codec.of(settings)).all_states(VERIFICATIONS)
        return any([any(month.asks for month in state.months.values()) async for _, state in states])
    finally:
        await redis.aclose()


async def _ends(settings: Settings, topics: Sequence[Topic] = TOPICS) -> dict[TopicPartition, int]:
    consumer = AIOKafkaConsumer(**settings.kafka_client_options(), enable_auto_commit=False)
    await consumer.start()
    partitions = [TopicPartition(topic.name, n) for topic in topics for n in range(settings.partitions)]
    consumer.assign(partitions)
    consumer.pause(*partitions)
    ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
    await consumer.stop()
    return ends


async def read(settings: Settings) -> dict[str, list[Any]]:
    ends = await _ends(settings)
    consumer = AIOKafkaConsumer(**settings.kafka_client_options(), enable_auto_commit=False)
    await consumer.start()
    consumer.assign(list(ends))
    await consumer.seek_to_beginning(*ends)
    found: dict[str, list[Any]] = {topic.name: [] for topic in TOPICS}
    while any([await consumer.position(tp) < end for tp, end in ends.items()]):
        for tp, records in (await consumer.getmany(timeout_ms=300)).items():
            found[tp.topic] += records
    await consumer.stop()
    return found
