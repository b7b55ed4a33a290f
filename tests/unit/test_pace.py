"""How long a worker lets the brokers wait: a first record never, what follows on it for others, idle ones long."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.protocol.fetch import FetchRequest

from services.runtime import pace
from services.runtime.pace import (
    AT_ONCE_MS,
    BATCH_MS,
    GATHERED_BYTES,
    IDLE_WAIT_MS,
    LEAST_GATHER_MS,
    LONGEST_GATHER_MS,
    Pace,
    scheduled,
)

BOTH = [TopicPartition("payments", 0), TopicPartition("payments", 1)]


class Fetcher:
    """aiokafka's, as far as the pace looks at it: it asks one broker for what it has no records of."""

    def __init__(self) -> None:
        self._records: dict[TopicPartition, list[Any]] = {}

    def _select_read_replica(self, _: TopicPartition) -> int:
        return 1

    def _get_actions_per_node(self, assignment: Any) -> Any:
        asked = [(tp.partition, 0, 0, 1_000) for tp in assignment.tps if tp not in self._records]
        return ([(1, FetchRequest(500, 1, 1_000_000, 0, [("payments", asked)]))], None, None, None)


class World:
    def __init__(self) -> None:
        self.now = 100.0
        self.ran = self.waited = 0
        self.fetcher = Fetcher()
        self.pace = Pace(self.fetcher, lambda: self.now, lambda: (self.ran, self.waited))

    def asked(self) -> tuple[int, int]:
        """The wait and the least bytes of the next fetch."""
        ((_, request),) = self.fetcher._get_actions_per_node(SimpleNamespace(tps=BOTH))[0]
        return request._max_wait_ms, request._min_bytes


def test_after_a_pause_the_first_record_comes_back_at_once() -> None:
    assert World().asked() == (IDLE_WAIT_MS, 1)


def test_what_follows_on_few_batches_hardly_waits() -> None:
    world = World()
    world.pace.fetched(batches=AT_ONCE_MS // BATCH_MS)
    assert world.asked() == (LEAST_GATHER_MS, GATHERED_BYTES)


def test_many_batches_wait_for_as_long_as_they_are_worth() -> None:
    world = World()
    for _ in range(10):
        world.pace.fetched(batches=8)
        world.now += world.asked()[0] / 1000
    world.pace.fetched(batches=8)
    assert world.asked() == (8 * BATCH_MS, GATHERED_BYTES)


@pytest.mark.parametrize(("waited", "counts"), [(0, 1), (5, 1), (10, 1), (20, 2), (30, 3), (1_000, 4)])
def test_a_batch_counts_the_more_the_longer_the_process_waits_for_a_core(waited: int, counts: int) -> None:
    world = World()
    world.now += 1.0
    world.ran, world.waited = 10, waited
    world.pace.fetched(batches=12)
    assert world.asked()[0] == min(LONGEST_GATHER_MS, 12 * BATCH_MS * counts - AT_ONCE_MS)


def test_what_counts_is_how_crowded_it_was_last_and_not_ever() -> None:
    world = World()
    world.ran, world.waited = 10, 1_000
    world.now += 1.0
    world.pace.fetched(batches=1)
    world.ran, world.waited = 1_000, 1_010
    world.now += 1.0
    world.pace.fetched(batches=12)
    assert world.asked()[0] == 12 * BATCH_MS - AT_ONCE_MS


@pytest.mark.skipif(not pace.SCHEDULED.exists(), reason="only Linux tells it")
def test_linux_tells_how_long_a_process_ran_and_waited() -> None:
    ran, waited = scheduled()
    assert ran > 0 and waited >= 0


def test_where_the_system_does_not_tell_a_batch_counts_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pace, "SCHEDULED", tmp_path / "none")
    assert scheduled() == (0, 0)
    world = World()
    world.pace = Pace(world.fetcher, lambda: world.now)
    world.now += 1.0
    world.pace.fetched(batches=12)
    assert world.asked()[0] == 12 * BATCH_MS - AT_ONCE_MS


def test_where_nothing_more_came_it_is_a_pause_again() -> None:
    world = World()
    world.pace.fetched(batches=4)
    world.now += world.asked()[0] / 1000
    assert world.asked() == (IDLE_WAIT_MS, 1)


@pytest.mark.parametrize(("batches", "wait_ms"), [(0, LEAST_GATHER_MS), (1_000, LONGEST_GATHER_MS)])
def test_no_fetch_waits_too_short_or_too_long(batches: int, wait_ms: int) -> None:
    world = World()
    world.pace.fetched(batches)
    assert world.asked() == (wait_ms, GATHERED_BYTES)


def test_a_fetch_that_leaves_out_a_partition_is_soon_back() -> None:
    world = World()
    world.fetcher._records[BOTH[0]] = ["taken by nobody yet"]
    assert world.asked() == (LEAST_GATHER_MS, GATHERED_BYTES)
