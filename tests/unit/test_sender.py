"""Sending for many cells over one producer: in turns, and undisturbed by another cell's failure."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError, ProducerClosed

from schemas.topics import SALES
from services.runtime import sender
from services.runtime.sender import ATTEMPTS, Sender
from services.runtime.settings import Settings
from services.runtime.store import Outgoing

STAGE = "commission.sales"


class Batch:
    def append(self, **record: Any) -> object:
        return record

    def close(self) -> None:
        pass


class Producer:
    """`sent`: what becomes of a batch, given the producer and its partition."""

    def __init__(self, number: int, sent: Callable[["Producer", int], Any]) -> None:
        self.number, self._sent = number, sent
        self.is_closed = asyncio.Event()

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        self.is_closed.set()

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(self, batch: Batch, topic: str, partition: int) -> "asyncio.Future[Any]":
        return asyncio.ensure_future(self._sent(self, partition))


class FakeSender(Sender):
    def __init__(self, sent: Callable[[Producer, int], Any]) -> None:
        super().__init__(Settings.model_validate({"kafka": "127.0.0.1:1"}))
        self._sent_by, self.made = sent, 0

    def _new_producer(self) -> Any:
        self.made += 1
        return Producer(self.made, self._sent_by)


def said(partition: int) -> list[Outgoing]:
    return [Outgoing(1, SALES.name, partition, b"p", b"{}", ())]


def test_a_cell_whose_producer_others_replace_goes_on_until_it_has_sent() -> None:
    """Cells 0 and 1 fail three times each, as is allowed; cell 2 is slow, and loses its producer each time."""
    failures = {0: ATTEMPTS - 1, 1: ATTEMPTS - 1}

    async def sent(by: Producer, partition: int) -> None:
        if failures.get(partition):
            if partition == 1 and failures[0]:
                await by.is_closed.wait()
                raise ProducerClosed
            failures[partition] -= 1
            raise KafkaTimeoutError
        if sum(failures.values()):
            await by.is_closed.wait()
            raise ProducerClosed

    async def scene() -> int:
        sending = FakeSender(sent)
        await sending.start()
        await asyncio.gather(*(sending.send(STAGE, said(partition)) for partition in range(3)))
        return sending.made

    assert asyncio.run(scene()) > ATTEMPTS + 1


def test_a_cell_that_fails_by_itself_is_given_up() -> None:
    async def sent(by: Producer, partition: int) -> None:
        raise KafkaTimeoutError

    async def scene() -> None:
        sending = FakeSender(sent)
        await sending.start()
        with pytest.raises(KafkaTimeoutError):
            await sending.send(STAGE, said(0))
        assert sending.made == ATTEMPTS

    asyncio.run(scene())


def test_a_send_that_never_ends_is_tried_with_another_producer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "DEADLINE_SECONDS", 0.02)

    async def sent(by: Producer, partition: int) -> None:
        if by.number == 1:
            await asyncio.Event().wait()

    async def scene() -> int:
        sending = FakeSender(sent)
        await sending.start()
        await sending.send(STAGE, said(0))
        return sending.made

    assert asyncio.run(scene()) == 2


def test_few_cells_send_at_a_time_and_to_wait_for_a_turn_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "DEADLINE_SECONDS", 0.5)
    under_way, most, cells = 0, 0, 10 * sender.AT_ONCE

    async def sent(by: Producer, partition: int) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.1)
        under_way -= 1

    async def scene() -> int:
        sending = FakeSender(sent)
        await sending.start()
        await asyncio.gather(*(sending.send(STAGE, said(partition)) for partition in range(cells)))
        return sending.made

    assert asyncio.run(scene()) == 1
    assert most == sender.AT_ONCE
