"""Real services on real Kafka and Valkey, with one kind of fault at random moments, and all that must hold after it.

All golden journeys of all programs are played while faults happen, with ids of their own, on the same servers. Then:
every input had its effect, and none had it twice (the journeys' own expectations); what was sent again is the same byte
for byte; the books add up; Redis holds what the log gives; no edge has a hole; nobody is behind; and a partner from
before saw the same figures, or 503, all the time.

`make test` does each kind a few times, `make faults` (REFSTREAM_FAULTS=long) as often as docs/faults.md says.
"""

import os
import random
import signal
import time
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.faults.checks import play_all_under, play_under
from tests.faults.playground import SESSION_SECONDS, WORKERS, Fault, Playground
from tests.faults.proxy import Mode, Proxy
from tests.faults.rounds import KINDS, LONG, SEED, Round

pytestmark = [pytest.mark.infra, pytest.mark.kill]

SKEW_SECONDS = 3 * 86_400
ODD_DAYS = (
    datetime(2024, 2, 29, 23, 59, 50, tzinfo=UTC),
    datetime(2028, 2, 28, 23, 59, 50, tzinfo=UTC),
    datetime(2027, 3, 28, 0, 59, 55, tzinfo=UTC),
    datetime(2026, 10, 25, 0, 59, 55, tzinfo=UTC),
)
"""Moments before a leap day begins or ends, and before Europe changes its clocks."""
COPY = """
local copied = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  copied[#copied + 1] = key
  copied[#copied + 1] = redis.call('DUMP', key)
end
return copied
"""


def kill_workers(ground: Playground, rng: random.Random) -> Collection[str]:
    hit = rng.sample(WORKERS, rng.choice([1, 1, 1, 2]))
    for service in hit:
        ground.signal(service, signal.SIGKILL)
    return hit


def freeze_a_worker(ground: Playground, rng: random.Random) -> Collection[str]:
    """Until its cells are another's. There is no other worker of the service: it comes back as a stranger."""
    service = rng.choice(WORKERS)
    pid = ground.signal(service, signal.SIGSTOP)
    time.sleep(SESSION_SECONDS + rng.uniform(1, 3))
    if pid:
        os.kill(pid, signal.SIGCONT)
    return [service]


def kill_kafka(ground: Playground, rng: random.Random) -> Collection[str]:
    ground.kill_kafka()
    time.sleep(rng.uniform(0, 2))
    ground.start_kafka()
    return WORKERS


def kill_valkey(ground: Playground, rng: random.Random) -> Collection[str]:
    ground.kill_valkey()
    time.sleep(rng.uniform(0, 2))
    ground.start_valkey()
    return WORKERS


def empty_valkey(ground: Playground, rng: random.Random) -> Collection[str]:
    ground.redis.flushall()
    return WORKERS


def restore_a_copy(ground: Playground, rng: random.Random) -> Collection[str]:
    """Put back what Valkey held a moment ago, as a failover to a replica that was behind does."""
    server = ground.redis
    copied: Any = server.eval(COPY, 0)  # of one moment, as every snapshot, append-only file and replica is
    time.sleep(rng.uniform(0.2, 2))
    with server.pipeline(transaction=True) as pipe:
        pipe.flushall()
        for key, dumped in zip(copied[::2], copied[1::2], strict=True):
            pipe.restore(key, 0, dumped)
        pipe.execute()
    return WORKERS


def break_a_link(ground: Playground, rng: random.Random) -> Collection[str]:
    modes: tuple[Mode, ...] = ("cut", "delay", "lose replies", "truncate")
    proxy: Proxy = rng.choice([ground.kafka_proxy, ground.redis_proxy])
    proxy.behave(rng.choice(modes))
    time.sleep(rng.uniform(0.2, 3))
    proxy.behave("pass")
    return WORKERS


def skew_a_clock(ground: Playground, rng: random.Random) -> Collection[str]:
    """Half the cells of a service are folded, and its timers run, by a clock of another day for a while."""
    now = ground.settings.now()
    wrong = now + timedelta(seconds=rng.randint(-SKEW_SECONDS, SKEW_SECONDS))
    service, at = rng.choice(WORKERS), rng.choice([wrong, wrong, *ODD_DAYS])
    with ground.wrong_clock(service, round((at - now).total_seconds())):
        time.sleep(rng.uniform(2, 8))
    return [service]


FAULTS: dict[str, Fault] = {
    "SIGKILL of workers": kill_workers,
    "SIGSTOP beyond the session": freeze_a_worker,
    "Kafka killed": kill_kafka,
    "Valkey killed": kill_valkey,
    "Valkey emptied": empty_valkey,
    "Valkey restored from an older copy": restore_a_copy,
    "links broken": break_a_link,
    "clocks wrong": skew_a_clock,
}


OFTEN = ("SIGKILL of workers", "links broken")
"""The kinds that fill a playing of their own in `make test`; the others share one there."""


@pytest.mark.parametrize("kind", FAULTS if LONG else OFTEN)
def test_whatever_fails_nothing_is_lost_and_nothing_counts_twice(ground: Playground, kind: str) -> None:
    play_all_under(ground, KINDS[kind], FAULTS[kind])


@pytest.mark.skipif(LONG, reason="each kind has playings of its own there")
def test_one_kind_of_fault_after_another_loses_nothing(ground: Playground) -> None:
    names = [name for name in FAULTS if name not in OFTEN for _ in range(KINDS[name].short)]
    round_ = Round(1, len(names), f"one after another {SEED}")
    random.Random(round_.seed).shuffle(names)
    play_under(ground, "mixed", round_, [FAULTS[name] for name in names])


def test_the_folder_of_logs_shows_no_failed_cell(ground: Playground) -> None:
    """A worker that ended by itself, rather than being killed or fenced, met something that the loop does not know."""
    assert "the rules give other contents" not in ground.logs()
