"""How often somebody may call: counted in Redis, so that a limit holds over all processes of an API.

A caller with a token is counted by role and `sub`, a visitor without one by network address (an IPv6 address by its
/64, which one household has to itself). Nobody's requests count for anybody else. The window slides; all of it may
come in one burst.

A process counts a hundredth of the limit ahead and spends it without asking Redis again, so that counting costs next to
nothing per request; what it does not spend is lost to the caller, never given twice. A refusal holds in the process for
a second and is said a moment late, so that whoever goes on all the same costs next to nothing either.
"""

import asyncio
import ipaddress
import math
import time
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.storage import Storage
from limits.aio.storage.redis import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.runtime.http.problems import Problem
from services.runtime.redis_client import connect
from services.runtime.settings import Settings

WINDOW_SECONDS = 30
REDIS_SECONDS = 0.5  # counting must not cost more than what it protects
PREFIX = "refstream:rate"
SHARE_AHEAD = 100
REFUSAL_SECONDS = 1.0
REFUSAL_DELAY_SECONDS = 0.1  # a caller who waits for each answer asks so often at most, per connection
MAX_TALLIES = 10_000  # then all are forgotten: what was counted ahead is lost, no limit is widened


def counting_client(settings: Settings) -> Redis:
    """Connections for counting: they give up soon and try nothing twice."""
    return connect(settings.redis_url(), socket_connect_timeout=REDIS_SECONDS, socket_timeout=REDIS_SECONDS)


class _Storage(RedisStorage):
    """Over a client of ours, be it a cluster's: the keys of one caller share a hash tag."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        super().__init__("redis://", implementation="redispy", key_prefix=PREFIX)

    def configure_bridge(self) -> None:
        self.bridge.connection_getter = lambda readonly: self._redis  # type: ignore[attr-defined]


@dataclass(slots=True)
class _Tally:
    """What a process knows of one caller: requests counted ahead, and until when (monotonic) it is refused."""

    ahead: int = 0
    refused_until: float = 0.0
    wait_seconds: int = 0
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class RateLimits:
    """Counts requests. `storage`: Redis, or a dictionary for tests."""

    def __init__(self, settings: Settings, storage: Storage) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        partner, trusted = settings.rate_limit_partner, settings.rate_limit_trusted
        per_second = {"partner": partner, "platform": trusted, "admin": trusted, "public": settings.rate_limit_public}
        self._limits = {kind: _limit(kind, rate) for kind, rate in per_second.items() if rate}
        self._tallies: dict[tuple[str, str], _Tally] = {}

    @classmethod
    def over(cls, settings: Settings, redis: Redis) -> "RateLimits":
        """Counted in Redis."""
        return cls(settings, _Storage(redis))

    async def count(self, kind: str, who: str) -> None:
        """One more request of a role's caller, or of a visitor (`public`).

        Where Redis is out of reach the request goes on, to whatever becomes of it without Redis.
        Errors: Problem 429 with `Retry-After`.
        """
        limit = self._limits.get(kind)
        if limit is None:
            return
        tally = self._tally(kind, who)
        try:
            async with tally.asking:  # one question to Redis at a time, however many requests of a caller wait for it
                if not tally.ahead:
                    await self._count_ahead(limit, who, tally)
                tally.ahead -= 1
        except Problem:
            await asyncio.sleep(REFUSAL_DELAY_SECONDS)
            raise

    async def _count_ahead(self, limit: RateLimitItem, who: str, tally: _Tally) -> None:
        """Errors: Problem 429."""
        if time.monotonic() < tally.refused_until:
            raise _too_many(tally.wait_seconds)
        count = max(1, limit.amount // SHARE_AHEAD)
        try:
            counted = await self._limiter.hit(limit, who, cost=count)
            stats = None if counted else await self._limiter.get_window_stats(limit, who)
        except RedisError:
            stats = None
        if stats is not None:
            tally.wait_seconds = min(max(math.ceil(stats.reset_time - time.time()), 1), WINDOW_SECONDS)
            tally.refused_until = time.monotonic() + REFUSAL_SECONDS
            raise _too_many(tally.wait_seconds)
        tally.ahead = count

    def _tally(self, kind: str, who: str) -> _Tally:
        if len(self._tallies) >= MAX_TALLIES and (kind, who) not in self._tallies:
            self._tallies.clear()
        return self._tallies.setdefault((kind, who), _Tally())


def _too_many(wait_seconds: int) -> Problem:
    headers = {"Retry-After": str(wait_seconds)}
    return Problem(429, "rate_limited", "Too many requests; ask again later.", headers=headers)


def _limit(kind: str, per_second: int) -> RateLimitItem:
    return RateLimitItemPerSecond(per_second * WINDOW_SECONDS, WINDOW_SECONDS, namespace=kind)


def network_of(address: str) -> str:
    """What a visitor is counted by."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


async def visitor(request: Request) -> str:
    """The network that a request without a token comes from, counted. Errors: Problem 429."""
    network = network_of(request.client.host if request.client else "")
    rates: RateLimits | None = request.app.state.resources.rates
    if rates is not None:
        await rates.count("public", network)
    return network


TheVisitor = Annotated[str, Depends(visitor)]
"""Parameter type of a public route that is counted: `visitor: TheVisitor`."""
