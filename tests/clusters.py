"""Kafka and Valkey as clusters on this machine: brokers that replicate, primaries with a replica each."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import redis
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import REDIS_CLUSTER_HASH_SLOTS

from services.local import ports
from services.local.kafka import MEMORY, Kafka, new_cluster_id
from services.local.valkey import Valkey
from tests.faults.playground import CACHE, Ground, until
from tests.faults.rounds import LONG
from tests.journey import Journey

STARTED_SECONDS, TAKEN_OVER_SECONDS = 120, 60
SMALL = (*MEMORY, "-Xmx256m")
BROKER = """\
node.id={number}
controller.quorum.voters={voters}
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
"""
FEW = (
    "active-referrals-zone",
    "general-disputes",
    "general-several-programs",
    "jupsoft-annual-plan",
    "jupsoft-hold-and-dispute",
    "keycrm-month-end",
    "keycrm-payout",
    "keycrm-tiers",
    "message-help-partner-account",
    "proxy-credits-claims",
)
"""Journeys through every service; all of them take minutes where three brokers share two cores."""
SERVER = {"cluster-enabled": "yes", "cluster-node-timeout": "2000", "repl-diskless-sync-delay": "0"}


class Brokers:
    """Kafka brokers by number, each a controller too."""

    def __init__(self, folder: Path, count: int = 3) -> None:
        numbers = range(1, count + 1)
        names = [f"{role}-{number}" for role in ("broker", "controller") for number in numbers]
        self._ports = ports.choose(folder, dict.fromkeys(names, 0))
        voters = ",".join(f"{number}@127.0.0.1:{self._ports[f'controller-{number}']}" for number in numbers)
        cluster_id = new_cluster_id()
        self._all = {
            number: Kafka(
                folder / f"kafka-{number}",
                folder / f"kafka-{number}.log",
                CACHE,
                more=BROKER.format(number=number, voters=voters),
                cluster_id=cluster_id,
                memory=SMALL,
            )
            for number in numbers
        }

    @property
    def addresses(self) -> str:
        return ",".join(map(self._address, self._all))

    def _address(self, number: int) -> str:
        return f"127.0.0.1:{self._ports[f'broker-{number}']}"

    def start(self, *numbers: int) -> None:
        """Start those, or all; return when they answer."""
        with ThreadPoolExecutor(len(self._all)) as pool:
            list(pool.map(self._start, numbers or self._all))
        for number in numbers or self._all:
            until(lambda number=number: self._all[number].answers(self._address(number)), STARTED_SECONDS)

    def _start(self, number: int) -> None:
        self._all[number].start(self._ports[f"broker-{number}"], self._ports[f"controller-{number}"])

    def kill(self, number: int) -> None:
        _kill(self._all[number])

    def stop(self) -> None:
        _stop(list(self._all.values()))

    def partitions(self) -> list[dict[str, Any]]:
        """Every partition of every topic: its leader, `replicas` and `isr`. Asks whoever answers."""
        topics: list[dict[str, Any]] = []

        def told() -> bool:
            with suppress(KafkaError):
                topics[:] = asyncio.run(_described(self.addresses))
            return bool(topics)

        until(told, STARTED_SECONDS)
        return [partition for topic in topics for partition in topic["partitions"]]

    def leading_most(self) -> int:
        """The broker that leads the most partitions."""
        return Counter(partition["leader"] for partition in self.partitions()).most_common(1)[0][0]

    def are_in_sync(self) -> bool:
        return all(len(partition["isr"]) == len(partition["replicas"]) for partition in self.partitions())


async def _described(addresses: str) -> list[dict[str, Any]]:
    admin = AIOKafkaAdminClient(bootstrap_servers=addresses)
    await admin.start()
    try:
        return await admin.describe_topics()
    finally:
        await admin.close()


class Servers:
    """Valkey servers by number: the first half began as primaries, each of the others as the replica of one."""

    def __init__(self, folder: Path, primaries: int = 3) -> None:
        self._primaries = primaries
        self._numbers = range(1, 2 * primaries + 1)
        names = [f"{role}-{number}" for role in ("valkey", "bus") for number in self._numbers]
        self._ports = ports.choose(folder, dict.fromkeys(names, 0))
        self._all = {
            number: Valkey(
                folder / f"valkey-{number}",
                folder / f"valkey-{number}.log",
                SERVER | {"cluster-port": str(self._ports[f"bus-{number}"])},
            )
            for number in self._numbers
        }

    def url(self, login: str = "") -> str:
        return f"redis+cluster://{login}" + ",".join(f"127.0.0.1:{self._port(number)}" for number in self._numbers)

    def _port(self, number: int) -> int:
        return self._ports[f"valkey-{number}"]

    def at(self, number: int) -> "redis.Redis":
        """A client of one server alone."""
        return redis.Redis(port=self._port(number), socket_timeout=5)

    def clients(self) -> "list[redis.Redis]":
        return [self.at(number) for number in self._numbers]

    def start(self) -> None:
        """Start all of them and make a cluster of them; return when it takes writes and all is replicated."""
        for number in self._numbers:
            self.start_one(number)
        first, slots = self.at(1), REDIS_CLUSTER_HASH_SLOTS
        for number in self._numbers:
            self.at(number).execute_command("CLUSTER SET-CONFIG-EPOCH", number)
            if number <= self._primaries:
                from_slot, behind = (slots * each // self._primaries for each in (number - 1, number))
                self.at(number).execute_command("CLUSTER ADDSLOTSRANGE", from_slot, behind - 1)
            first.execute_command("CLUSTER MEET", "127.0.0.1", self._port(number), self._ports[f"bus-{number}"])
        until(lambda: all(self._knows_all(number) for number in self._numbers), STARTED_SECONDS)
        for number in range(1, self._primaries + 1):
            name = self.at(number).execute_command("CLUSTER MYID")
            self.at(number + self._primaries).execute_command("CLUSTER REPLICATE", name)
        until(self.are_in_sync, STARTED_SECONDS)

    def _knows_all(self, number: int) -> bool:
        return len(self.at(number).execute_command("CLUSTER NODES")) == len(self._numbers)

    def start_one(self, number: int) -> None:
        self._all[number].start(self._port(number))
        until(lambda: self._all[number].answers(f"redis://127.0.0.1:{self._port(number)}"), STARTED_SECONDS)

    def kill(self, number: int) -> None:
        _kill(self._all[number])

    def stop(self) -> None:
        _stop(list(self._all.values()))

    def primary_of(self, key: str) -> int:
        """The number of the server that takes a key's writes now."""
        nodes = [ClusterNode("127.0.0.1", self._port(number)) for number in self._numbers]
        client = RedisCluster(startup_nodes=nodes)
        try:
            port = client.get_node_from_key(key).port
        finally:
            client.close()
        return next(number for number in self._numbers if self._port(number) == port)

    def replica_of(self, primary: int) -> int:
        told = {number: self.at(number).info("replication") for number in self._numbers}
        return next(number for number, about in told.items() if about.get("master_port") == self._port(primary))

    def until_taken_over(self, replica: int) -> None:
        until(lambda: self.at(replica).info("replication")["role"] == "master", TAKEN_OVER_SECONDS)
        until(lambda: "cluster_state:ok" in self._state(replica), TAKEN_OVER_SECONDS)

    def are_in_sync(self) -> bool:
        """Whether all servers run, every primary has its replica, and the cluster takes writes."""
        with suppress(redis.ConnectionError, redis.TimeoutError):
            told = [self.at(number).info("replication") for number in self._numbers]
            linked = [about for about in told if about.get("master_link_status") == "up"]
            ok = all("cluster_state:ok" in self._state(number) for number in self._numbers)
            return ok and len(linked) == len(told) - self._primaries
        return False

    def _state(self, number: int) -> str:
        told: Any = self.at(number).execute_command("CLUSTER INFO")
        return "\n".join(f"{name}:{value}" for name, value in told.items())


def _kill(server: Kafka | Valkey) -> None:
    assert server.child
    os.kill(server.child.pid, signal.SIGKILL)
    server.child.stop(10)


def _stop(servers: Sequence[Kafka | Valkey]) -> None:
    children = [server.child for server in servers if server.child]
    for child in children:
        child.terminate()
    for child in children:
        child.stop(15)


class Clusters(Ground):
    """A refstream on both. Everything of it ends with `clusters()`."""

    def __init__(self, folder: Path) -> None:
        self.brokers, self.servers = Brokers(folder), Servers(folder)
        super().__init__(folder, kafka=self.brokers.addresses, redis=self.servers.url())

    def journeys(self, tag: str) -> list[Journey]:
        return [journey for journey in super().journeys(tag) if LONG or journey.name.removeprefix(tag) in FEW]


@contextmanager
def clusters(folder: Path) -> Iterator[Clusters]:
    made = Clusters(folder)
    with ExitStack() as until_the_end:
        until_the_end.callback(made.servers.stop)
        until_the_end.callback(made.brokers.stop)
        made.servers.start()
        made.brokers.start()
        until_the_end.callback(made.refstream, "down")
        made.up()
        yield made
