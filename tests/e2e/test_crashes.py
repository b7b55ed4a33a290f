"""A worker killed, or frozen, between any two steps of the loop changes no balance. Real processes, Kafka and Redis.

Each case arms one named point of one stage (`services.runtime.faults`), writes a small history, waits until the worker
has met its fate, and lets a successor finish. What Redis holds then must be what the same events give in memory.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from schemas import events
from schemas.events import Event, event_json, parse_event
from schemas.ids import partition_of
from schemas.moments import DAY, parse_instant
from schemas.money import Money
from schemas.topics import TOPIC_OF
from services import payouts
from services.cli.bench.load import publish_programs
from services.payouts import ledger
from services.runtime.codec import Codec
from services.runtime.faults import POINTS
from services.runtime.keeper import FENCED_EXIT
from services.runtime.redis_client import connect
from services.runtime.redis_reader import RedisReader
from services.runtime.settings import Settings
from tests.conftest import DATA_SECRETS, Stack
from tests.worlds import balance, shown, world

pytestmark = [pytest.mark.infra, pytest.mark.kill]

T = TypeVar("T")
START = parse_instant("2025-01-01T00:00:00Z")
STAGES = {
    "commission.sales": "commission",
    "commission.partners": "commission",
    "payouts.ledger": "payouts",
}
SENDS = ("half_sent", "sent", "trimmed")


def _cases() -> list[tuple[str, str]]:
    """Every point of every stage; the ledger sends nothing of its own accord here."""
    return [(s, p) for s in STAGES for p in POINTS if not (s == "payouts.ledger" and p in SENDS)]


def history(tag: str) -> list[Event]:
    """Two partners with enough clients to climb a tier; refunds; a late first client; one payment sent twice."""

    def event(name: str, at: int, data: events.Payload) -> Event:
        return Event(f"{tag}{name}", "/test", at, data)

    made = []
    for number in range(14):
        customer, partner = f"{tag}c{number}", f"{tag}p{number % 2}"
        bound = events.ReferralAttributed(
            customer_id=customer,
            partner_id=partner,
            program_id="keycrm",
            program_version=1,
            method="click",
            attributed_at=START,
        )
        made.append(event(f"r{number}", START, bound))
    for number in range(60):
        customer = f"{tag}c{(number * 5 + number // 14) % 14}"
        payment = f"{tag}pay{number}"
        paid = events.PaymentSucceeded(
            payment_id=payment, customer_id=customer, amount=Money(minor=1000 + 37 * number, currency="USD")
        )
        made.append(event(f"e{number}", START + (60 - number) * DAY // 2, paid))
        if number % 6 == 0:
            refund = events.PaymentRefunded(
                payment_id=payment,
                customer_id=customer,
                refund_id=f"{payment}-r",
                amount=Money(minor=333, currency="USD"),
            )
            made.append(event(f"f{number}", START + 70 * DAY, refund))
    return [*made, made[20]]


def expected(tag: str) -> dict[str, Any]:
    made = world()
    made.publish(*history(tag))
    made.run()
    return {f"{tag}p{n}": balance(made, f"{tag}p{n}", "keycrm", at=START + 1000 * DAY) for n in range(2)}


@contextmanager
def worker(stack: Stack, service: str, fault: str = "") -> Iterator["subprocess.Popen[bytes]"]:
    """A worker process; killed at the end, whatever became of it."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("REFSTREAM_")}
        environment |= {
            "REFSTREAM_KAFKA": stack.kafka,
            "REFSTREAM_REDIS": stack.redis,
            "REFSTREAM_LOCAL": "1",
            "REFSTREAM_DATA_DIR": folder,
            "REFSTREAM_AUTH_SECRET": "x" * 40,
            "REFSTREAM_DATA_SECRETS": json.dumps(DATA_SECRETS),
            "REFSTREAM_SESSION_SECONDS": "2",
            "REFSTREAM_FAULT": fault,
        }
        log = Path(folder) / "log"
        with log.open("wb") as out:
            command = [sys.executable, "-m", "services.cli.main", "worker", service]
            process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
            try:
                yield process
            finally:
                process.kill()
                process.wait()
                if process.returncode not in (0, -signal.SIGKILL, FENCED_EXIT):
                    print(log.read_text()[-3000:])


def run(work: Awaitable[T]) -> T:
    async def main() -> T:
        return await work

    return asyncio.run(main())


async def publish(settings: Settings, made: list[Event]) -> None:
    producer = AIOKafkaProducer(**settings.kafka_client_options(), acks="all", enable_idempotence=True)
    await producer.start()
    for event in made:
        topic = TOPIC_OF[type(event.data)]
        key = topic.key(event.data)
        partition = partition_of(key, settings.partitions)
        await producer.send_and_wait(topic.name, event_json(event), key=key.encode(), partition=partition)
    await producer.stop()


async def balances(stack: Stack, tag: str) -> dict[str, Any]:
    """The partners' balances from the ledger in Redis."""
    redis = connect(stack.redis)
    reader = RedisReader(stack.settings.partitions, redis, Codec.of(stack.settings))
    found = {}
    for number in range(2):
        partner = f"{tag}p{number}"
        rows = await reader.rows(payouts.LEDGER, partner)
        book = ledger.balance(rows.values(), START + 1000 * DAY, START + 1000 * DAY).get(("keycrm", "USD"))
        found[partner] = book and shown(book)
    await redis.aclose()
    return found


def until(what: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.2)
    return False


async def numbers_on(settings: Settings, topic: str) -> dict[tuple[str, int], list[int]]:
    """Per edge and partition of a topic, the numbers in the order in which they stand in the log."""
    consumer = AIOKafkaConsumer(**settings.kafka_client_options(), enable_auto_commit=False)
    await consumer.start()
    partitions = [TopicPartition(topic, number) for number in range(settings.partitions)]
    consumer.assign(partitions)
    await consumer.seek_to_beginning(*partitions)
    ends = await consumer.end_offsets(partitions)
    found: dict[tuple[str, int], list[int]] = {}
    while any([await consumer.position(tp) < ends[tp] for tp in partitions]):
        for tp, records in (await consumer.getmany(timeout_ms=500)).items():
            for record in records:
                parse_event(record.value)
                headers = dict(record.headers)
                edge = headers["refstream-edge"].decode()
                found.setdefault((edge, tp.partition), []).append(int(headers["refstream-number"]))
    await consumer.stop()
    return found


@pytest.fixture(scope="module")
def programs(stack: Stack) -> Stack:
    run(publish_programs(stack.settings))
    return stack


@pytest.mark.parametrize(("stage", "point"), _cases())
def test_a_worker_killed_between_two_steps_changes_no_balance(programs: Stack, stage: str, point: str) -> None:
    tag = f"{stage}-{point}-"
    service = STAGES[stage]
    other = "payouts" if service == "commission" else "commission"
    # The ledger may get all of this history in one batch, the stages before it never do.
    fault = f"kill@{stage}.{point}:{1 if stage == 'payouts.ledger' else 2}"
    with worker(programs, other), worker(programs, service, fault) as victim:
        run(publish(programs.settings, history(tag)))
        assert until(lambda: victim.poll() is not None), "the worker never came to the point"
        assert victim.returncode == -signal.SIGKILL
        with worker(programs, service):
            wanted = expected(tag)
            assert until(lambda: run(balances(programs, tag)) == wanted), (run(balances(programs, tag)), wanted)
            time.sleep(1)
            assert run(balances(programs, tag)) == wanted


@pytest.mark.parametrize("point", ["folded", "committed"])
@pytest.mark.parametrize("stage", ["commission.sales", "commission.partners"])
def test_a_frozen_worker_that_wakes_after_its_successor_changes_no_balance(
    programs: Stack, stage: str, point: str
) -> None:
    tag = f"zombie-{stage}-{point}-"
    with worker(programs, "payouts"), worker(programs, "commission", f"stop@{stage}.{point}:2") as zombie:
        first, second = history(tag)[:40], history(tag)[40:]
        run(publish(programs.settings, first))
        assert until(lambda: _state(zombie.pid) == "T"), "the worker never came to the point"
        with worker(programs, "commission"):
            run(publish(programs.settings, second))
            wanted = expected(tag)
            assert until(lambda: run(balances(programs, tag)) == wanted), (run(balances(programs, tag)), wanted)
            os.kill(zombie.pid, signal.SIGCONT)
            if point == "folded":
                assert until(lambda: zombie.poll() is not None, 30), "the woken worker still thinks it owns the cell"
                assert zombie.returncode == FENCED_EXIT
            time.sleep(3)
            assert run(balances(programs, tag)) == wanted


def test_edges_have_no_holes_after_all_of_that(programs: Stack) -> None:
    for topic in ("sales", "commissions"):
        for edge, numbers in run(numbers_on(programs.settings, topic)).items():
            highest = 0
            for number in numbers:
                assert number <= highest + 1, (topic, edge)
                highest = max(highest, number)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
