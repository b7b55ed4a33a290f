"""Every golden journey again, on real Kafka and Redis through the running services."""

import asyncio
import time
from itertools import zip_longest
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from schemas.events import Event, event_json
from schemas.ids import partition_of
from schemas.topics import TOPIC_OF, TOPICS
from services.rewards.verifications import VERIFICATIONS
from services.runtime.lag import lags
from services.runtime.settings import Settings
from services.runtime.store import RedisReader, connect
from services.runtime.worker import stages_of
from tests.e2e.conftest import Running
from tests.journey import Journey, journeys, matches, missing
from tests.worlds import EXAMPLES

pytestmark = pytest.mark.infra

SERVICES = ("attribution", "commission", "rewards", "payouts")
Records = dict[str, list[Any]]


@pytest.fixture(scope="module")
def played(running: Running) -> Records:
    """All journeys published at once, phase by phase; answers every topic's records."""
    for example in EXAMPLES:
        published = running.refstream("programs", "publish", str(example), "--yes")
        assert published.returncode == 0, published.stdout + published.stderr
    for phases in zip_longest(*(list(journey.phases()) for journey in journeys()), fillvalue=[]):
        asyncio.run(_publish(running.settings, [event for phase in phases for event in phase]))
        asyncio.run(_settle(running.settings))
    return asyncio.run(_read(running.settings))


@pytest.mark.parametrize("journey", journeys(), ids=lambda journey: journey.name)
def test_journey_gives_what_the_rule_promises(journey: Journey, running: Running, played: Records) -> None:
    events = [_json(record) for topic in _read_topics() for record in played[topic]]
    assert missing(journey.expected("out"), events) == []
    for unwanted in journey.expected("none"):
        assert [event for event in events if matches(unwanted, event)] == []
    letters = [
        {name: value.decode() for name, value in record.headers}
        for record in played["dead-letters"]
        if journey.name.encode() in record.value
    ]
    for letter in journey.expected("dead"):
        assert any(matches(letter, headers) for headers in letters), letter
    for wanted in journey.expected("balance"):
        _check_balance(running, dict(wanted))
    for wanted in journey.expected("wallet"):
        query = {"as_of": wanted["as_of"]} if "as_of" in wanted else {}
        shown = running.get(f"/rewards/partners/{wanted['partner_id']}/wallet", **query)
        assert shown["credits"] == wanted["credits"]


def _check_balance(running: Running, wanted: dict[str, Any]) -> None:
    partner_id, program_id, currency = (str(wanted.pop(name)) for name in ("partner_id", "program_id", "currency"))
    query = {"as_of": wanted.pop("as_of")} if "as_of" in wanted else {}
    books = running.get(f"/payouts/partners/{partner_id}/balance", **query)["balances"]
    (book,) = [book for book in books if (book["program_id"], book["currency"]) == (program_id, currency)]
    assert {name: book[name]["minor"] for name in wanted} == wanted


def _read_topics() -> list[str]:
    return [topic.name for topic in TOPICS if not topic.internal and topic.writer not in ("platform", "every service")]


def _json(record: Any) -> dict[str, Any]:
    event: dict[str, Any] = orjson.loads(record.value)
    return event


async def _publish(settings: Settings, events: list[Event]) -> None:
    producer = AIOKafkaProducer(**settings.kafka_client_options(), acks="all", enable_idempotence=True)
    await producer.start()
    for event in events:
        topic = TOPIC_OF[type(event.data)]
        key = topic.key(event.data)
        partition = partition_of(key, settings.partitions)
        await producer.send_and_wait(topic.name, event_json(event), key=key.encode(), partition=partition)
    await producer.stop()


async def _settle(settings: Settings, seconds: float = 60) -> None:
    """Wait until no service is behind, and nothing has been added meanwhile."""
    reads = {
        service: {topic.name for stage in stages_of(service, settings) for topic in stage.reads} for service in SERVICES
    }
    deadline, before = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        behind = sum(row.lag for row in await lags(settings, reads))
        ends = await _ends(settings)
        if not behind and ends == before and not await _somebody_waits(settings):
            return
        before = ends
        await asyncio.sleep(0.2)
    raise AssertionError("the services never caught up")


async def _somebody_waits(settings: Settings) -> bool:
    """Whether a month that was asked for is not verified yet: a worker's timer sets that going, no record."""
    redis = connect(settings.redis_url())
    try:
        states = RedisReader(settings.partitions, redis).all_states(VERIFICATIONS)
        return any([any(month.asks for month in state.months.values()) async for _, state in states])
    finally:
        await redis.aclose()


async def _ends(settings: Settings) -> dict[TopicPartition, int]:
    consumer = AIOKafkaConsumer(**settings.kafka_client_options(), enable_auto_commit=False)
    await consumer.start()
    partitions = [TopicPartition(topic.name, n) for topic in TOPICS for n in range(settings.partitions)]
    ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
    await consumer.stop()
    return ends


async def _read(settings: Settings) -> Records:
    ends = await _ends(settings)
    consumer = AIOKafkaConsumer(**settings.kafka_client_options(), enable_auto_commit=False)
    await consumer.start()
    consumer.assign(list(ends))
    await consumer.seek_to_beginning(*ends)
    found: Records = {topic.name: [] for topic in TOPICS}
    while any([await consumer.position(tp) < end for tp, end in ends.items()]):
        for tp, records in (await consumer.getmany(timeout_ms=300)).items():
            found[tp.topic] += records
    await consumer.stop()
    return found
