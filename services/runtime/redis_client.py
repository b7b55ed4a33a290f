"""Redis as it is reached, one server or a cluster: the only place that knows which. And whether it may hold the state.

In a cluster all keys of a cell are on one server, since they share a hash tag. Which one that is may change at any
time: a replica takes over, slots are moved. To whoever asks that is a lost connection. Nothing is sent on from one
server to another, so whatever was asked at once has been answered by one server, or not at all; what is asked again
goes to the one that has the cell now.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast
from urllib.parse import urlsplit

import redis.asyncio as aioredis
from redis.asyncio.cluster import ClusterNode, ClusterPipeline, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterError,
    RedisClusterException,
    ResponseError,
    SlotNotCoveredError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

log = logging.getLogger(__name__)

CLUSTER = "+cluster"
"""Behind `redis` or `rediss` in a URL: what stands there is a server of a cluster, or several with commas between."""

USUAL_PORT = 6379

Server = ClusterNode | None
"""One of a cluster's; None: the only one that there is."""


def connect(url: str, **options: Any) -> aioredis.Redis:
    """A client that never retries by itself: only the commit knows how a write can be repeated safely.

    `options`: as redis-py has them, instead of ours. A cluster's client has the same commands, but tries nothing again
    in any case.
    """
    never = Retry(NoBackoff(), 0)
    usual: dict[str, Any] = {"retry": never, "socket_timeout": 10, "socket_connect_timeout": 5}
    options = {**usual, "decode_responses": False, "health_check_interval": 0, **options}
    scheme, _, rest = url.partition("://")
    if not scheme.endswith(CLUSTER):
        return aioredis.Redis.from_url(url, **options)
    authority = re.split("[/?#]", rest, maxsplit=1)[0]  # not by urlsplit: newer ones take one IPv6 address alone
    login, at, addresses = authority.rpartition("@")
    first, *others = addresses.split(",")
    plain = f"{scheme.removesuffix(CLUSTER)}://{login}{at}{first}{rest.removeprefix(authority)}"
    options |= {"retry": never, "startup_nodes": [_node(address) for address in others]}
    return cast(aioredis.Redis, _Cluster.from_url(plain, **options))


def _node(address: str) -> ClusterNode:
    parts = urlsplit(f"//{address}")
    return ClusterNode(parts.hostname or "", parts.port or USUAL_PORT)


async def server_of(redis: Any, key: str) -> Server:
    """Where a key is now, as far as is known."""
    if not isinstance(redis, _Cluster):
        return None
    await redis.initialize()
    with _as_lost():
        return redis.get_node_from_key(key)


async def servers_of(redis: Any) -> list[Server]:
    """Every server that takes writes."""
    if not isinstance(redis, _Cluster):
        return [None]
    await redis.initialize()
    return list(redis.get_primaries())


def to(server: Server) -> dict[str, Any]:
    """The options of a command that is for a server."""
    return {"target_nodes": server} if server else {}


_CHANGING = (AskError, ClusterError, SlotNotCoveredError, TryAgainError)


@contextmanager
def _as_lost(*more: type[Exception]) -> Iterator[None]:
    try:
        yield
    except _CHANGING + more as error:
        raise RedisConnectionError(f"the cluster changes: {error}") from error


class _Cluster(RedisCluster):
    RedisClusterRequestTTL = 1  # servers that are asked: after an answer of `MOVED` no further one

    async def initialize(self, *arguments: Any, **options: Any) -> "_Cluster":
        with _as_lost(RedisClusterException):
            await super().initialize(*arguments, **options)
        return self

    async def execute_command(self, *arguments: Any, **options: Any) -> Any:
        await self.initialize()  # a client that knows no servers yet would ask any of them
        with _as_lost():
            return await super().execute_command(*arguments, **options)

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> ClusterPipeline:
        return _Pipeline(self, transaction)  # type: ignore[abstract]


class _Pipeline(ClusterPipeline):
    async def execute(self, raise_on_error: bool = True, allow_redirections: bool = False) -> list[Any]:
        try:
            with _as_lost():
                return await super().execute(raise_on_error, allow_redirections)
        except (RedisConnectionError, RedisTimeoutError):
            with suppress(RedisConnectionError, RedisTimeoutError, RedisClusterException):
                await self.cluster_client.nodes_manager.initialize()  # a pipeline's failure alone would not set it off
            raise


# --- whether it may hold the state ----------------------------------------------------------------------------------


class StoreRefused(Exception):
    """This Redis must not hold the state: the message names why, and the cure."""


async def refuse_unfit_store(redis: Any, partitions: int) -> None:
    """Refuse a Redis that evicts keys, or whose state was made with another partition count. Errors: StoreRefused.

    So is one that does not let us in, or lets nobody write. One that persists nothing is only a warning: what it loses
    is folded again, which takes time and no money.
    """
    try:
        memories = [(server, await redis.info("memory", **to(server))) for server in await servers_of(redis)]
    except (AuthenticationError, ResponseError) as error:
        raise StoreRefused(
            f"Redis does not let us in ({error}): name in REFSTREAM_REDIS a user and a password that it knows, "
            f"redis://USER:PASSWORD@HOST:PORT/0"  # pragma: allowlist secret
        ) from None
    for server, memory in memories:
        at, policy = f" at {server.name}" if server else "", memory.get("maxmemory_policy", "noeviction")
        if memory.get("maxmemory") and policy != "noeviction":
            raise StoreRefused(f"Redis{at} evicts keys ({policy}): set maxmemory-policy noeviction")
        if not (await redis.info("persistence", **to(server))).get("aof_enabled", 1):
            log.warning("Redis%s keeps no append-only file, so a restart of it costs a rebuild: set appendonly yes", at)
    try:
        await redis.set("refstream:partitions", partitions, nx=True)
    except ResponseError as error:
        raise StoreRefused(
            f"Redis refuses to write ({error}): let this user write, and make room on Redis' disk and in its memory"
        ) from None
    known = int(await redis.get("refstream:partitions"))
    if known != partitions:
        raise StoreRefused(
            f"REFSTREAM_PARTITIONS is {partitions}, but the state in Redis was made with {known}: "
            f"set it back to {known}, or move to new topics and replay"
        )
