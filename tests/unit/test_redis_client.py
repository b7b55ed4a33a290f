"""What a Redis URL may say; what a cluster does is in tests/e2e/test_clusters.py."""

from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from services.runtime.redis_client import connect, server_of, servers_of, to


async def test_one_server_is_the_only_one_to_ask() -> None:
    redis = connect("redis://127.0.0.1:1/0")
    assert isinstance(redis, Redis)
    assert (await server_of(redis, "{a:0}"), await servers_of(redis), to(None)) == (None, [None], {})
    await redis.aclose()


async def test_a_cluster_is_named_by_some_of_its_servers() -> None:
    login = "some:p%40ss"
    servers = "redis.example,192.0.2.1:7000,[2001:db8::1]:7001"
    redis: Any = connect(f"rediss+cluster://{login}@{servers}/0?ssl_ca_certs=/etc/ca.pem")
    assert set(redis.nodes_manager.startup_nodes) == {"redis.example:6379", "192.0.2.1:7000", "2001:db8::1:7001"}
    told = redis.connection_kwargs
    assert (told["username"], told["password"], told["ssl_ca_certs"]) == ("some", "p@ss", "/etc/ca.pem")
    assert redis.retry.get_retries() == 0
    await redis.aclose()


async def test_a_cluster_none_of_whose_servers_answers_is_a_lost_connection() -> None:
    redis = connect("redis+cluster://127.0.0.1:1,127.0.0.1:2")
    with pytest.raises(RedisConnectionError):
        await redis.hget("a", "b")
    with pytest.raises(RedisConnectionError):
        async with redis.pipeline(transaction=False) as pipe:
            pipe.hget("a", "b")
            await pipe.execute()
    await redis.aclose()
