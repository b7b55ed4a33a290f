"""A refstream on three Kafka brokers and a Valkey cluster, whose servers are killed while it works.

What must hold after it is what tests/faults asks for: the journeys come out right, edges have no holes, the books
add up, Redis holds what the log gives, and who asks meanwhile sees the right figure or 503. `make faults` plays all
journeys and goes on for longer.
"""

import asyncio
import json
import logging
import random
import secrets
import shlex
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import replace
from typing import Any

import pytest
from redis.exceptions import NoPermissionError

from services.cli.access import REDIS_ACL
from services.payouts import LEDGER
from services.runtime.codec import Codec
from services.runtime.http.problems import Problem
from services.runtime.http.rates import WINDOW_SECONDS, RateLimits, counting_client
from services.runtime.reader import Rebuilding
from services.runtime.redis_client import StoreRefused, connect, refuse_unfit_store
from services.runtime.redis_reader import RedisReader
from services.runtime.redis_store import RedisCellStore
from services.runtime.store import TRANSIENT, Commit, Verdict, tag
from tests.clusters import FEW, Clusters, clusters
from tests.faults.checks import BEFORE, play_before, play_under
from tests.faults.playground import WORKERS, until
from tests.faults.recovery import seconds_until_out
from tests.faults.rounds import LONG, SEED, Round

pytestmark = [pytest.mark.infra, pytest.mark.kill]

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it says a lot about servers that are down

ROUNDS = 10 if LONG else 1
SETTLED_SECONDS = 120
LOST = "Redis has lost commits of the cell"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    with clusters(tmp_path_factory.mktemp("clusters")) as made:
        play_before(made, [one for one in made.journeys(BEFORE) if one.name.removeprefix(BEFORE) in FEW[:3]])
        yield made


def kill_a_broker(ground: Clusters, rng: random.Random) -> Collection[str]:
    """The one that leads the most partitions; it comes back when others lead them."""
    killed = ground.brokers.leading_most()
    ground.brokers.kill(killed)
    until(lambda: all(partition["leader"] not in (killed, -1) for partition in ground.brokers.partitions()), 60)
    ground.brokers.start(killed)
    return WORKERS


def kill_a_primary(ground: Clusters, rng: random.Random) -> Collection[str]:
    """It comes back as the replica of what was its replica."""
    killed = ground.servers.primary_of(tag(LEDGER.name, rng.randrange(ground.settings.partitions)))
    _fail_over(ground, killed, ground.servers.replica_of(killed))
    return WORKERS


def kill_a_primary_that_is_ahead(ground: Clusters, rng: random.Random) -> Collection[str]:
    """The replica that takes over lacks what all services have committed since it lost its primary."""
    killed = ground.servers.primary_of(tag(LEDGER.name, rng.randrange(ground.settings.partitions)))
    replica = ground.servers.replica_of(killed)
    primary = ground.servers.at(killed)
    primary.execute_command("ACL SETUSER", "default", "-psync", "-sync")  # forgotten when it is started again
    primary.execute_command("CLIENT KILL", "TYPE", "replica")
    seconds_until_out(ground.settings, WORKERS)
    assert primary.info("replication")["connected_slaves"] == 0
    _fail_over(ground, killed, replica)
    return WORKERS


def _fail_over(ground: Clusters, primary: int, replica: int) -> None:
    ground.servers.kill(primary)
    ground.servers.until_taken_over(replica)
    ground.servers.start_one(primary)


FAULTS = (kill_a_broker, kill_a_primary, kill_a_primary_that_is_ahead)


def _settled(ground: Clusters) -> None:
    """What was lost once must not be lost again before it is copied."""
    until(ground.servers.are_in_sync, SETTLED_SECONDS)
    until(ground.brokers.are_in_sync, SETTLED_SECONDS)


def test_every_partition_is_on_three_brokers_and_two_must_have_a_record(ground: Clusters) -> None:
    partitions = ground.brokers.partitions()
    assert {len(partition["replicas"]) for partition in partitions} == {3}
    assert len({partition["leader"] for partition in partitions}) == 3


def test_all_is_right_after_brokers_and_primaries_were_killed(ground: Clusters) -> None:
    for number in range(1, ROUNDS + 1):
        round_ = Round(number, len(FAULTS), f"clusters {SEED} {number}")
        faults = random.Random(round_.seed).sample(FAULTS, len(FAULTS))
        play_under(ground, f"c{number}", round_, [_then_settled(fault) for fault in faults])
    assert LOST in ground.logs(of_each=None)


def _then_settled(fault: Callable[[Clusters, random.Random], Collection[str]]) -> Any:
    def happens(ground: Clusters, rng: random.Random) -> Collection[str]:
        _settled(ground)
        return fault(ground, rng)

    return happens


def test_the_commands_of_whoever_operates_know_a_cluster(ground: Clusters) -> None:
    _settled(ground)
    status = json.loads(ground.refstream("status", "--json").stdout)
    assert status["ready"] and sum(row["lag"] for row in status["services"]) == 0
    rebuilt = ground.refstream("rebuild", "--yes", "--service", "payouts")
    assert rebuilt.returncode == 0, rebuilt.stdout + rebuilt.stderr
    verified = ground.refstream("verify", "--service", "payouts")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    erased = ground.refstream("erase", f"{BEFORE}general-disputes.anna", "--yes")
    assert erased.returncode == 0, erased.stdout + erased.stderr


# --- what one client meets ------------------------------------------------------------------------------------------


def _with_client(ground: Clusters, scene: Callable[[Any], Awaitable[None]]) -> None:
    _settled(ground)

    async def main() -> None:
        redis = connect(ground.settings.redis_url())
        try:
            await scene(redis)
        finally:
            await redis.aclose()

    asyncio.run(main())


@pytest.mark.defence(
    "what is asked of one server is not answered by another",
    "In the moment of a failover the run is the former server's, the answer the new one's: an older balance is shown.",
    where="services/runtime/redis_client.py: execute",
)
def test_after_a_failover_nobody_reads_a_cell_before_its_owner_has_looked(ground: Clusters) -> None:
    """The former primary lives, so that its client learns from its answers alone that another one has the cell."""
    cell = ("test.failover", 0)
    primary = ground.servers.primary_of(tag(*cell))
    replica = ground.servers.replica_of(primary)

    async def scene(redis: Any) -> None:
        store = RedisCellStore(redis, *cell)
        opened = await store.open()
        commit = Commit(opened.epoch, "w:1", positions={"commits": (0, 1)}, states={"c1": b"state"})
        assert await store.commit(commit) is Verdict.APPLIED
        assert await store.whole(opened.epoch, 1)
        assert await store.peek(*cell, "c1") == b"state"
        ground.servers.at(replica).execute_command("CLUSTER FAILOVER")
        ground.servers.until_taken_over(replica)
        until(lambda: ground.servers.at(primary).info("replication")["role"] == "slave", SETTLED_SECONDS)
        met = []
        while not met or not isinstance(met[-1], Rebuilding):
            with pytest.raises(TRANSIENT) as caught:
                await store.peek(*cell, "c1")
            met.append(caught.value)
        assert len(met) > 1  # it knew nothing of the failover yet
        assert await store.whole(opened.epoch, 1)
        assert await store.peek(*cell, "c1") == b"state"
        assert not await store.whole(opened.epoch, 2)
        assert await store.commit(replace(commit, token="w:2")) is Verdict.FENCED

    _with_client(ground, scene)


def test_one_evicting_primary_is_one_too_many(ground: Clusters) -> None:
    last = ground.servers.at(ground.servers.primary_of(tag(LEDGER.name, 0)))

    async def scene(redis: Any) -> None:
        await refuse_unfit_store(redis, ground.settings.partitions)
        last.config_set("maxmemory", "1gb")
        last.config_set("maxmemory-policy", "allkeys-lru")
        try:
            with pytest.raises(StoreRefused, match=r"at 127\.0\.0\.1:\d+ evicts keys .* noeviction"):
                await refuse_unfit_store(redis, ground.settings.partitions)
        finally:
            last.config_set("maxmemory", "0")
            last.config_set("maxmemory-policy", "noeviction")

    _with_client(ground, scene)


def test_the_shipped_users_have_what_a_cluster_takes(ground: Clusters) -> None:
    _settled(ground)
    password = secrets.token_hex(16)
    users = [line for line in REDIS_ACL.read_text().splitlines() if line.startswith("ACL SETUSER")][:-1]
    for user in users:
        for server in ground.servers.clients():
            server.execute_command(*shlex.split(user), f">{password}")

    async def main() -> None:
        own = ground.settings.model_copy(update={"rate_limit_partner": 1})
        as_api, as_worker, as_operator = (
            own.model_copy(update={"redis": ground.servers.url(f"{user}:{password}@")})
            for user in ("payouts-api", "payouts-worker", "operator")
        )
        api, worker, operator = (connect(each.redis_url()) for each in (as_api, as_worker, as_operator))
        counting = counting_client(as_api)
        try:
            await refuse_unfit_store(worker, own.partitions)
            reader = RedisReader(own.partitions, api, Codec.of(own))
            while not await reader.ready([LEDGER]):  # there was a failover a moment ago
                await asyncio.sleep(0.1)
            assert [key async for key, _ in reader.all_states(LEDGER)]
            with pytest.raises(NoPermissionError):
                await api.hset(f"{tag(LEDGER.name, 0)}:meta", "ready", "0")
            assert (await RedisCellStore(worker, "payouts.test", 0).open()).epoch == 1
            assert await operator.hget(f"{tag(LEDGER.name, 0)}:meta", "commits")
            rates = RateLimits.over(as_api, counting)
            for _ in range(WINDOW_SECONDS):
                await rates.count("partner", "p-1")
            with pytest.raises(Problem, match="rate_limited"):
                await rates.count("partner", "p-1")
        finally:
            for client in (api, worker, operator, counting):
                await client.aclose()

    asyncio.run(main())
