"""Real services on real Kafka and Valkey, with one kind of fault at random moments, and all that must hold after it.

All golden journeys of all programs are played once per kind of fault, with ids of their own, on the same servers. Then:
every input had its effect, and none had it twice (the journeys' own expectations); what was sent again is the same byte
for byte; the books add up; Redis holds what the log gives; no edge has a hole; nobody is behind; and a partner from
before saw the same figures, or 503, all the time.

`make test` plays each kind once, `make faults` (REFSTREAM_FAULTS=long) as often as docs/faults.md says.
"""

import logging
import os
import random
import re
import signal
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import httpx
import pytest

from schemas.faults import Verified
from services.runtime.cell import EDGE_HEADER, NUMBER_HEADER
from tests.faults.playground import SESSION_SECONDS, WORKERS, Fault, Harm, Playground, playground
from tests.faults.proxy import Mode, Proxy
from tests.faults.rounds import KINDS, LONG, Round, rounds_of
from tests.journey import Journey, journeys
from tests.over_kafka import Played, check, play

pytestmark = [pytest.mark.infra, pytest.mark.kill]

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it says a lot about servers that are down
FOLDED_SECONDS = 240
COPY = """
local copied = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  copied[#copied + 1] = key
  copied[#copied + 1] = redis.call('DUMP', key)
end
return copied
"""
BEFORE = "before."
VERIFIED = re.compile(r"(\d+) records of (\d+) cells folded again in [\d.]+ s: (\d+) differences")


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


FAULTS: dict[str, Fault] = {
    "SIGKILL of workers": kill_workers,
    "SIGSTOP beyond the session": freeze_a_worker,
    "Kafka killed": kill_kafka,
    "Valkey killed": kill_valkey,
    "Valkey emptied": empty_valkey,
    "Valkey restored from an older copy": restore_a_copy,
    "links broken": break_a_link,
}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    with playground(tmp_path_factory.mktemp("faults")) as made:
        before = journeys(BEFORE)
        played = play(made.settings, before, FOLDED_SECONDS)
        for journey in before:
            check(journey, played, made.get)
        yield made


@pytest.mark.parametrize("kind", FAULTS)
def test_whatever_fails_nothing_is_lost_and_nothing_counts_twice(ground: Playground, kind: str) -> None:
    for round_ in rounds_of(KINDS[kind], ground.valkey_version):
        own: list[Journey] = []
        with _witness(ground) as seen, Harm(ground, FAULTS[kind], random.Random(round_.seed), round_.times) as harm:
            while not own or (LONG and harm.goes_on):
                again = journeys(f"{KINDS[kind].slug}.{round_.number}.{len(own)}.")
                play(ground.settings, again, FOLDED_SECONDS)
                own += again
        assert harm.failures == [], round_.seed
        assert seen == set(), (round_.seed, seen)
        _all_is_right(ground, own, round_)
        round_.recoveries = harm.recoveries


def _all_is_right(ground: Playground, own: Sequence[Journey], round_: Round) -> None:
    played = play(ground.settings, [], FOLDED_SECONDS)
    for journey in own:
        check(journey, played, ground.get)
    _edges_have_no_holes(played)
    _books_add_up(ground, played)
    verified = ground.refstream("verify")
    assert verified.returncode == 0, (round_.seed, verified.stdout, verified.stderr)
    records, cells, differences = map(int, VERIFIED.search(verified.stdout).groups())  # type: ignore[union-attr]
    round_.verified = Verified(cells=cells, records=records, differences=differences)
    round_.events = sum(len(phase) for journey in own for phase in journey.phases())


def _witness(ground: Playground) -> Any:
    """Somebody who asks for a partner's balance all the time. Answers what was seen beside the one right answer."""
    return _Witness(ground)


class _Witness:
    def __init__(self, ground: Playground) -> None:
        self._ground, self._over, self.seen = ground, threading.Event(), set[str]()
        wanted = next(dict(line) for journey in journeys(BEFORE) for line in journey.expected("balance"))
        self._path = f"/payouts/partners/{wanted['partner_id']}/balance"
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> set[str]:
        self._right = self._ground.get(self._path)
        self._thread.start()
        return self.seen

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            try:
                answer = self._ground.ask(self._path)
            except httpx.HTTPError as error:
                self.seen.add(repr(error))
                continue
            if answer.status_code == 503:
                continue
            if answer.status_code != 200 or answer.json() != self._right:
                self.seen.add(f"{answer.status_code} {answer.text}")


def _edges_have_no_holes(played: Played) -> None:
    highest: dict[tuple[str, str, int], int] = {}
    for topic, records in played.records.items():
        for record in records:
            headers = dict(record.headers)
            if EDGE_HEADER in headers:
                edge = (headers[EDGE_HEADER].decode(), topic, record.partition)
                number = int(headers[NUMBER_HEADER])
                assert number <= highest.get(edge, 0) + 1, (edge, number)
                highest[edge] = max(number, highest.get(edge, 0))


def _books_add_up(ground: Playground, played: Played) -> None:
    """Of every partner who ever earned: what was earned less what was undone is pending, available, paid or used."""
    partners = {
        record.key.decode() for record in played.records["commissions"] if b"commission.accrued" in record.value
    }
    for partner in sorted(partners):
        for book in ground.get(f"/payouts/partners/{partner}/balance")["balances"]:
            minor = {name: each["minor"] for name, each in book.items() if isinstance(each, dict)}
            assert minor["accrued"] - minor["reversed"] + minor["deposits"] - minor["spent"] == (
                minor["pending"] + minor["available"] + minor["processing"] + minor["paid"] + minor["topped_up"]
            ), (partner, book)


def test_the_folder_of_logs_shows_no_failed_cell(ground: Playground) -> None:
    """A worker that ended by itself, rather than being killed or fenced, met something that the loop does not know."""
    assert "the rules give other contents" not in ground.logs()
