"""The local stack: real servers, durable over a restart, gone with the process that started them."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from services.local.refusal import StackRefused
from services.local.stack import LocalStack
from services.runtime.settings import Settings
from services.runtime.topics_admin import TopicsRefused, ensure_topics, wanted
from tests.conftest import Stack
from tests.processes import gone

pytestmark = pytest.mark.infra

PARENT = """
import sys, time
from pathlib import Path
from services.local.stack import LocalStack
stack = LocalStack(Path(sys.argv[1]))
stack.start()
print(*(child.pid for child in stack.children.values()), flush=True)
time.sleep(600)
"""


async def _write(bootstrap: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        await producer.send_and_wait("customers", value, partition=0)


async def _read(bootstrap: str) -> bytes:
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition("customers", 0)])
        record = await asyncio.wait_for(consumer.getone(), 20)
        assert record.value is not None
        return record.value


def _settings(stack: LocalStack) -> Settings:
    return Settings(kafka=stack.kafka, redis=stack.redis)


def test_what_was_written_is_there_after_stop_and_start(tmp_path: Path) -> None:
    with LocalStack(tmp_path) as stack:
        asyncio.run(ensure_topics(_settings(stack)))
        asyncio.run(_write(stack.kafka, b"kept"))
        with redis.Redis.from_url(stack.redis) as client:
            client.set("key", b"kept")
        with pytest.raises(StackRefused, match="runs already"):
            LocalStack(tmp_path).start()
    with LocalStack(tmp_path) as stack:
        assert asyncio.run(_read(stack.kafka)) == b"kept"
        with redis.Redis.from_url(stack.redis) as client:
            assert client.get("key") == b"kept"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_servers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert not any(map(gone, pids))
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not all(map(gone, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(map(gone, pids))


async def test_topics_are_created_once_and_a_changed_partition_count_is_refused(stack: Stack) -> None:
    assert await ensure_topics(stack.settings) == []
    changed = stack.settings.model_copy(update={"partitions": stack.settings.partitions + 1})
    with pytest.raises(TopicsRefused, match=f"REFSTREAM_PARTITIONS={stack.settings.partitions}"):
        await ensure_topics(changed)


async def test_a_changed_retention_is_refused(stack: Stack) -> None:
    admin = AIOKafkaAdminClient(**stack.settings.kafka_client_options())
    await admin.start()
    payments = next(topic for topic in wanted(4) if topic.name == "payments")
    try:
        finite = ConfigResource(ConfigResourceType.TOPIC, "payments", payments.configs | {"retention.ms": "9999999999"})
        await admin.alter_configs([finite])
        with pytest.raises(TopicsRefused, match=r"payments has retention\.ms=9999999999, not -1"):
            for _ in range(50):  # the broker takes a moment to tell
                await ensure_topics(stack.settings)
                await asyncio.sleep(0.1)
    finally:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, "payments", payments.configs)])
        await admin.close()
