"""What a worker refuses, and how it keeps Kafka's group informed."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from schemas.topics import CUSTOMERS, PAYMENTS, PROFILES
from services.runtime.redis_client import StoreRefused, connect, refuse_unfit_store
from services.runtime.topics_admin import TopicsRefused, _configs_of, ensure_topics, refuse_unfit_topics, wanted
from tests.conftest import Stack

pytestmark = pytest.mark.infra

USUAL = {"maxmemory": "0", "maxmemory-policy": "noeviction", "appendonly": "yes"}


def _with_redis(stack: Stack, scene: Callable[..., Awaitable[None]]) -> None:
    async def main() -> None:
        redis = connect(stack.redis)
        try:
            await scene(redis)
        finally:
            await redis.aclose()

    asyncio.run(main())


@asynccontextmanager
async def _configured(redis: Any, configs: Mapping[str, str]) -> AsyncIterator[None]:
    """Redis with something else in its configuration, until the end of the block."""
    for name, value in configs.items():
        await redis.config_set(name, value)
    try:
        yield
    finally:
        for name in configs:
            await redis.config_set(name, USUAL[name])


def test_a_changed_partition_count_is_refused_with_the_cure(stack: Stack) -> None:
    async def scene(redis: object) -> None:
        await refuse_unfit_store(redis, stack.settings.partitions)
        with pytest.raises(StoreRefused, match="set it back to 4"):
            await refuse_unfit_store(redis, 5)

    _with_redis(stack, scene)


def test_an_evicting_redis_is_refused_with_the_cure(stack: Stack) -> None:
    async def scene(redis: object) -> None:
        async with _configured(redis, {"maxmemory": "1gb", "maxmemory-policy": "allkeys-lru"}):
            with pytest.raises(StoreRefused, match="noeviction"):
                await refuse_unfit_store(redis, stack.settings.partitions)

    _with_redis(stack, scene)


def test_a_redis_that_does_not_know_us_is_told_with_the_cure(stack: Stack) -> None:
    async def scene(_: object) -> None:
        host = stack.redis.removeprefix("redis://")
        stranger = connect(f"redis://somebody:wrong@{host}")  # pragma: allowlist secret
        try:
            with pytest.raises(StoreRefused, match="name in REFSTREAM_REDIS a user and a password"):
                await refuse_unfit_store(stranger, stack.settings.partitions)
        finally:
            await stranger.aclose()

    _with_redis(stack, scene)


def test_a_redis_that_is_full_is_told_with_the_cure(stack: Stack) -> None:
    async def scene(redis: object) -> None:
        async with _configured(redis, {"maxmemory": "1"}):
            with pytest.raises(StoreRefused, match="make room on Redis' disk and in its memory"):
                await refuse_unfit_store(redis, stack.settings.partitions)

    _with_redis(stack, scene)


def test_a_redis_that_persists_nothing_is_told_of_and_used(stack: Stack, caplog: pytest.LogCaptureFixture) -> None:
    async def scene(redis: object) -> None:
        await refuse_unfit_store(redis, stack.settings.partitions)
        assert "appendonly" not in caplog.text
        async with _configured(redis, {"appendonly": "no"}):
            await refuse_unfit_store(redis, stack.settings.partitions)
        assert "set appendonly yes" in caplog.text

    _with_redis(stack, scene)


@contextmanager
def _changed(stack: Stack, topic: str, **configs: str) -> Iterator[None]:
    """A topic's configuration with something else in it, until the end of the block."""
    right = next(each.configs for each in wanted(stack.settings.partitions) if each.name == topic)

    async def configure(configs: dict[str, str]) -> None:
        admin = AIOKafkaAdminClient(**stack.settings.kafka_client_options())
        await admin.start()
        try:
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)])
            while not configs.items() <= (await _configs_of([topic], admin))[topic].items():
                await asyncio.sleep(0.05)  # answered by the controller, and on its way to the broker
        finally:
            await admin.close()

    asyncio.run(configure(right | {name.replace("_", "."): value for name, value in configs.items()}))
    try:
        yield
    finally:
        asyncio.run(configure(right))


@pytest.mark.parametrize(
    ("topic", "configs", "cure"),
    [
        ("payments", {"retention_ms": "31536000000"}, "--entity-name payments --add-config retention.ms=-1"),
        ("payments", {"retention_bytes": "1000000000"}, "--entity-name payments --add-config retention.bytes=-1"),
        ("customers", {"cleanup_policy": "compact"}, "--entity-name customers --add-config cleanup.policy=delete"),
        ("profiles", {"cleanup_policy": "delete"}, "--entity-name profiles --add-config cleanup.policy=compact"),
    ],
)
def test_a_topic_that_would_lose_records_is_refused_with_the_cure(
    stack: Stack, topic: str, configs: dict[str, str], cure: str
) -> None:
    with _changed(stack, topic, **configs):
        with pytest.raises(TopicsRefused, match=cure):
            asyncio.run(ensure_topics(stack.settings))
        with pytest.raises(TopicsRefused, match=cure):
            asyncio.run(refuse_unfit_topics(stack.settings, [CUSTOMERS, PROFILES, PAYMENTS]))
    asyncio.run(refuse_unfit_topics(stack.settings, [CUSTOMERS, PROFILES, PAYMENTS]))


def test_another_partition_count_of_topics_is_refused_with_the_cure(stack: Stack) -> None:
    settings = stack.settings.model_copy(update={"partitions": 5})
    for refusal in (ensure_topics(settings), refuse_unfit_topics(settings, [PAYMENTS])):
        with pytest.raises(TopicsRefused, match="REFSTREAM_PARTITIONS=4"):
            asyncio.run(refusal)


def _worker_that_ends(stack: Stack, **settings: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REFSTREAM_")}
    environment |= {"REFSTREAM_KAFKA": stack.kafka, "REFSTREAM_REDIS": stack.redis}
    environment |= {f"REFSTREAM_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "services.cli.main", "worker", "commission"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


STRONG = "0123456789abcdef" * 4
SECRETS = {"AUTH_SECRET": STRONG} | dict.fromkeys(("CLICK_SECRETS", "DATA_SECRETS"), json.dumps({"1": STRONG}))


def test_a_worker_does_not_start_on_a_topic_that_would_lose_records(stack: Stack) -> None:
    with _changed(stack, "payments", retention_ms="31536000000"):
        ended = _worker_that_ends(stack, **SECRETS)
    assert ended.returncode != 0
    assert "--entity-name payments --add-config retention.ms=-1" in ended.stdout + ended.stderr


@pytest.mark.parametrize("known", ["changeme", "secret", "refstream"])
def test_a_worker_does_not_start_with_a_secret_that_others_know(stack: Stack, known: str) -> None:
    ended = _worker_that_ends(stack, **SECRETS | {"AUTH_SECRET": known})
    assert ended.returncode != 0
    assert "REFSTREAM_AUTH_SECRET is a default that others know" in ended.stdout + ended.stderr
