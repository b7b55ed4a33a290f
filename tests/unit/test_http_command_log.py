"""Writing commands while producers break: written again by a fresh one, refused when Kafka is away."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, OutOfOrderSequenceNumber

from schemas.commands import SettleWithdrawal
from schemas.events import Event
from schemas.ids import partition_of
from services.runtime.http import Problem, command_log
from services.runtime.http.command_log import CommandLog
from tests.http_fakes import settings

COMMAND = SettleWithdrawal(
    command_id="cmd_1", body_hash="", caller="admin:a", partner_id="p-1", withdrawal_id="w-1", outcome="paid"
)
EVENT = Event("cmd_1", "/payouts", 0, COMMAND)


class FakeProducer:
    """`send_error` and `start_error` are what the next calls raise."""

    made: list["FakeProducer"]
    start_error: Exception | None = None

    def __init__(self, **options: Any) -> None:
        self.options, self.sent, self.stopped = options, list[tuple[Any, ...]](), False
        self.send_error: Exception | None = None
        type(self).made.append(self)

    async def start(self) -> None:
        if type(self).start_error:
            raise type(self).start_error

    async def stop(self) -> None:
        self.stopped = True

    async def send_and_wait(self, topic: str, value: bytes, key: bytes, partition: int) -> None:
        await asyncio.sleep(0)
        if self.send_error:
            raise self.send_error
        self.sent.append((topic, key, partition))


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> type[FakeProducer]:
    class Producer(FakeProducer):
        made: list[FakeProducer] = []  # noqa: RUF012 - one list per test

    monkeypatch.setattr(command_log, "AIOKafkaProducer", Producer)
    return Producer


@pytest.fixture
def log(kafka: type[FakeProducer]) -> CommandLog:
    return CommandLog(settings(kafka="localhost:9092", partitions=8))


async def test_command_is_written_durably_under_its_key(log: CommandLog, kafka: type[FakeProducer]) -> None:
    await log.start()
    await log.write(EVENT, "p-1")
    (producer,) = kafka.made
    assert producer.sent == [("commands.payouts", b"p-1", partition_of("p-1", 8))]
    assert (producer.options["acks"], producer.options["enable_idempotence"]) == ("all", True)


@pytest.mark.parametrize("make", [OutOfOrderSequenceNumber, TimeoutError])
async def test_broken_producer_is_replaced_once_for_all_its_writers(
    log: CommandLog, kafka: type[FakeProducer], make: Callable[[], Exception]
) -> None:
    await log.start()
    kafka.made[0].send_error = make()
    await asyncio.gather(*(log.write(EVENT, "p-1") for _ in range(5)))
    first, second = kafka.made
    assert (len(first.sent), len(second.sent)) == (0, 5)
    await log.stop()
    assert first.stopped and second.stopped


async def test_command_is_refused_while_kafka_is_away_and_written_when_it_is_back(
    log: CommandLog, kafka: type[FakeProducer]
) -> None:
    await log.start()
    kafka.made[0].send_error = kafka.start_error = KafkaConnectionError()
    with pytest.raises(Problem) as raised:
        await log.write(EVENT, "p-1")
    assert (raised.value.status, raised.value.code) == (503, "unavailable")
    kafka.start_error = None
    await log.write(EVENT, "p-1")
    assert len(kafka.made[-1].sent) == 1
