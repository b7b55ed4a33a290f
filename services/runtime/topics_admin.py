"""Creates the topics of the contract, and refuses a cluster where they are not what the contract says.

Two things about a topic can never be mended quietly: its partition count, on which it depends which worker owns which
key, and records that a short retention has thrown away.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaTimeoutError, for_code

from schemas.topics import TOPICS, Topic
from services.runtime.settings import Settings

USUAL_REPLICATION = 3
A_DAY_MS = "86400000"
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


async def _partitions(admin: AIOKafkaAdminClient) -> dict[str, int]:
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
    return {
        resource[3]: {entry[0]: entry[1] for entry in resource[4]}
        for answer in answers
        for resource in answer.resources
    }


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
