"""Creates the topics of the contract, and refuses a cluster where they are not what the contract says.

Two things about a topic can never be mended quietly: its partition count, on which it depends which worker owns which
key, and records that a short retention has thrown away.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaTimeoutError, for_code

from schemas.topics import DEAD_LETTERS, PROGRAMS, TOPICS, Topic
from services.runtime.settings import Settings
from services.runtime.stage import Stage

USUAL_REPLICATION = 3
A_DAY_MS = "86400000"
A_HUNDRED_YEARS_MS = "3153600000000"
"""For ever. Kafka adds it to the clock, so the greatest number that there is would lie in the past."""
TOPIC_ALREADY_EXISTS = 36
LISTED_TRIES, LISTED_PAUSE_SECONDS = 150, 0.1


class TopicsRefused(Exception):
    """Topics exist that contradict the contract. The message names each, what is wrong with it and the cure."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A topic as it has to be."""

    name: str
    partitions: int
    configs: dict[str, str]


def wanted(partitions: int) -> tuple[Wanted, ...]:
    """Every topic of the contract. Faust needs none of its own: its leader election is switched off."""
    return tuple(Wanted(topic.name, partitions, _configs(topic)) for topic in TOPICS)


def _configs(topic: Topic) -> dict[str, str]:
    configs = {"retention.ms": "-1", "retention.bytes": "-1", "cleanup.policy": "delete"}
    if topic.compacted:
        # A person who asked to be forgotten is out of the log after two days at most, however little is written.
        configs |= {"cleanup.policy": "compact", "max.compaction.lag.ms": A_DAY_MS, "segment.ms": A_DAY_MS}
        # The record that says so is there for whoever folds the log again, however late.
        configs |= {"delete.retention.ms": A_HUNDRED_YEARS_MS}
    if topic.log_append_time:
        configs["message.timestamp.type"] = "LogAppendTime"
    return configs


async def ensure_topics(settings: Settings) -> list[str]:
    """Create what is missing, check what is there; returns the names created, empty where all was there.

    Safe to run again and to run twice at once. Raises TopicsRefused for a topic that contradicts the contract (then
    nothing was created), KafkaError where Kafka does not answer.
    """
    admin = AIOKafkaAdminClient(**settings.kafka_client_options())
    await admin.start()
    try:
        topics = wanted(settings.partitions)
        existing = await _partitions(admin)
        await _check([topic for topic in topics if topic.name in existing], existing, admin)
        missing = [topic for topic in topics if topic.name not in existing]
        if missing:
            await _create(missing, await _replication(settings, admin), admin)
            await _until_led(missing, admin)
        return [topic.name for topic in missing]
    finally:
        await admin.close()


def concern(service: str, stages: Iterable[Stage[Any, Any]]) -> list[Topic]:
    """The topics that a service's worker reads or writes and its figures rest on, in the order of the contract."""
    read = {topic.name for stage in stages for topic in stage.reads}
    own = {topic.name for topic in TOPICS if topic.writer == service}
    return [topic for topic in TOPICS if topic.name in read | own | {PROGRAMS.name, DEAD_LETTERS.name}]


async def refuse_unfit_topics(settings: Settings, topics: Iterable[Topic]) -> None:
    """Refuse topics that are missing or contradict the contract; changes nothing.

    Raises TopicsRefused with the cure, KafkaError where Kafka does not answer or does not let us look.
    """
    names = {topic.name for topic in topics}
    expected = [topic for topic in wanted(settings.partitions) if topic.name in names]
    admin = AIOKafkaAdminClient(**settings.kafka_client_options())
    await admin.start()
    try:
        existing = await _partitions(admin)
        missing = [topic.name for topic in expected if topic.name not in existing]
        if missing:
            raise TopicsRefused(
                f"topics are missing, or this user may not see them: {', '.join(missing)}. Run `refstream topics`, and "
                "see docs/security.md where Kafka has ACLs"
            )
        await _check(expected, existing, admin)
    finally:
        await admin.close()


async def _partitions(admin: AIOKafkaAdminClient) -> dict[str, int]:
    # All that we may see, not the ones we look for: asking for a topic by name makes it where brokers create on demand.
    return {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}


async def _replication(settings: Settings, admin: AIOKafkaAdminClient) -> int:
    cluster = await admin.describe_cluster()
    return settings.replication_factor or min(USUAL_REPLICATION, len(cluster["brokers"]))


async def _check(topics: list[Wanted], existing: dict[str, int], admin: AIOKafkaAdminClient) -> None:
    if not topics:
        return
    configs = await _configs_of([topic.name for topic in topics], admin)
    wrong = []
    for count in sorted({existing[topic.name] for topic in topics}):
        names = [topic.name for topic in topics if existing[topic.name] == count != topic.partitions]
        if names:
            wrong.append(
                f"{', '.join(names)}: {count} partitions, not {topics[0].partitions}; the owner of each key depends on "
                f"it. Set REFSTREAM_PARTITIONS={count}; more partitions are a new cluster and a replay"
            )
    for topic in topics:
        for name, value in topic.configs.items():
            found = configs[topic.name].get(name)
            if found is not None and found != value:
                wrong.append(
                    f"{topic.name} has {name}={found}, not {value}. Put it right: kafka-configs.sh --alter "
                    f"--entity-type topics --entity-name {topic.name} --add-config {name}={value}"
                )
    if wrong:
        raise TopicsRefused("topics are not as the contract says:\n  " + "\n  ".join(wrong))


async def _configs_of(names: list[str], admin: AIOKafkaAdminClient) -> dict[str, dict[str, str]]:
    asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    answers: list[Any] = await admin.describe_configs(asked)
    found = {}
    for resource in (resource for answer in answers for resource in answer.resources):
        code, name, entries = resource[0], resource[3], resource[4]
        if code:  # a topic that may not be looked at is not a topic that is right
            raise for_code(code)(f"{name}: its configuration cannot be read")
        found[name] = {entry[0]: entry[1] for entry in entries}
    return found


async def _create(topics: list[Wanted], replication: int, admin: AIOKafkaAdminClient) -> None:
    # An acknowledged record must outlive the loss of one broker, where there are several.
    durable = {"min.insync.replicas": str(max(1, replication - 1))}
    answer = await admin.create_topics(
        [NewTopic(topic.name, topic.partitions, replication, topic_configs=topic.configs | durable) for topic in topics]
    )
    for name, code, message in answer.topic_errors:
        if code not in (0, TOPIC_ALREADY_EXISTS):
            raise for_code(code)(f"{name}: {message}")


async def _until_led(topics: list[Wanted], admin: AIOKafkaAdminClient) -> None:
    """A created topic takes a moment until each partition has a leader; a worker that starts now must find it."""
    names = {topic.name for topic in topics}
    for _ in range(LISTED_TRIES):
        if names <= (led := await _led(admin)):
            return
        await asyncio.sleep(LISTED_PAUSE_SECONDS)
    raise KafkaTimeoutError(f"created topics have no leaders: {sorted(names - led)}")


async def _led(admin: AIOKafkaAdminClient) -> set[str]:
    """The topics all of whose partitions have a leader."""
    topics = await admin.describe_topics()
    return {
        topic["topic"] for topic in topics if topic["partitions"] and all(p["leader"] >= 0 for p in topic["partitions"])
    }
