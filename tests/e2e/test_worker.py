"""What a worker refuses, and how it keeps Kafka's group informed."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from services.runtime.store import connect
from services.runtime.worker import StoreRefused, refuse_unfit_store
from tests.conftest import Stack

pytestmark = pytest.mark.infra


def _with_redis(stack: Stack, scene: Callable[..., Awaitable[None]]) -> None:
    async def main() -> None:
        redis = connect(stack.redis)
        try:
            await scene(redis)
        finally:
            await redis.aclose()

    asyncio.run(main())


def test_a_changed_partition_count_is_refused_with_the_cure(stack: Stack) -> None:
    async def scene(redis: object) -> None:
        await refuse_unfit_store(redis, stack.settings.partitions)
        with pytest.raises(StoreRefused, match="set it back to 4"):
            await refuse_unfit_store(redis, 5)

    _with_redis(stack, scene)


def test_an_evicting_redis_is_refused_with_the_cure(stack: Stack) -> None:
    async def scene(redis: object) -> None:
        set_config = redis.config_set  # type: ignore[attr-defined]
        await set_config("maxmemory", "1gb")
        await set_config("maxmemory-policy", "allkeys-lru")
        try:
            with pytest.raises(StoreRefused, match="noeviction"):
                await refuse_unfit_store(redis, stack.settings.partitions)
        finally:
            await set_config("maxmemory", "0")
            await set_config("maxmemory-policy", "noeviction")

    _with_redis(stack, scene)
