"""Waiting for decisions: one question for all that wait, an answer for each."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from schemas.commands import Answered
from services.payouts import LEDGER
from services.rewards.people import PEOPLE
from services.rewards.verifications import VERIFICATIONS
from services.runtime.http.decisions import Decisions
from services.runtime.reader import Rebuilding
from services.runtime.stage import Stage
from tests.http_fakes import FakeReader

STAGES, VERIFYING = (LEDGER,), (PEOPLE, VERIFICATIONS)


def decision(command_id: str) -> Answered:
    return Answered(command_id=command_id, body_hash="", caller="partner:p", status=201, body={"id": command_id})


class Counting(FakeReader):
    """Counts the questions, each of which takes a moment; `faults`: what the next ones raise."""

    def __init__(self, *faults: Exception) -> None:
        super().__init__()
        self.asked: list[Sequence[str]] = []
        self.faults = list(faults)

    async def answers(self, stages: Sequence[Stage[Any, Any]], command_ids: Sequence[str]) -> dict[str, Answered]:
        self.asked.append(list(command_ids))
        await asyncio.sleep(0.001)
        if self.faults:
            raise self.faults.pop(0)
        return await super().answers(stages, command_ids)


def test_all_that_wait_are_asked_for_at_once() -> None:
    reader, ids = Counting(), [f"w-{number}" for number in range(100)]

    async def scene() -> list[Answered | None]:
        decisions = Decisions(reader)
        waiting = asyncio.gather(*(decisions.of(STAGES, each, 5.0) for each in ids))
        while not reader.asked:
            await asyncio.sleep(0.001)
        reader.decided = {each: decision(each) for each in ids}
        return await waiting

    assert asyncio.run(scene()) == [decision(each) for each in ids]
    assert reader.asked == [ids] * len(reader.asked)
    assert len(reader.asked) < len(ids)


def test_each_gets_its_own_when_it_is_there() -> None:
    reader = Counting()

    async def scene() -> tuple[Answered | None, Answered | None]:
        decisions = Decisions(reader)
        early, late = (asyncio.create_task(decisions.of(STAGES, each, 5.0)) for each in ("early", "late"))
        reader.decided["early"] = decision("early")
        first = await early
        assert not late.done()
        reader.decided["late"] = decision("late")
        return first, await late

    assert asyncio.run(scene()) == (decision("early"), decision("late"))
    assert reader.asked[-1] == ["late"]


def test_a_command_of_other_stages_may_come_while_one_is_asked_for() -> None:
    reader = Counting()

    async def scene() -> list[Answered | None]:
        decisions = Decisions(reader)
        first = asyncio.create_task(decisions.of(STAGES, "first", 5.0))
        while not reader.asked:
            await asyncio.sleep(0)
        other = asyncio.create_task(decisions.of(VERIFYING, "other", 5.0))
        await asyncio.sleep(0.01)
        reader.decided = {each: decision(each) for each in ("first", "other")}
        return [await first, await other]

    assert asyncio.run(scene()) == [decision("first"), decision("other")]


def test_two_who_wait_for_one_command_both_get_it() -> None:
    reader = Counting()

    async def scene() -> list[Answered | None]:
        decisions = Decisions(reader)
        impatient, patient = decisions.of(STAGES, "w", 0.0), decisions.of(STAGES, "w", 5.0)
        waiting = asyncio.create_task(patient)
        assert await impatient is None
        reader.decided["w"] = decision("w")
        return [await waiting, await decisions.of(STAGES, "w", 5.0)]

    assert asyncio.run(scene()) == [decision("w")] * 2


def test_what_is_not_decided_in_time_is_none_and_is_asked_for_no_more() -> None:
    reader = Counting()

    async def scene() -> None:
        assert await Decisions(reader).of(STAGES, "w", 0.02) is None
        asked = len(reader.asked)
        await asyncio.sleep(0.05)
        assert len(reader.asked) <= asked + 1

    asyncio.run(scene())


def test_a_rebuild_is_waited_out() -> None:
    reader = Counting(Rebuilding("a cell"))
    reader.decided["w"] = decision("w")
    assert asyncio.run(Decisions(reader).of(STAGES, "w", 5.0)) == decision("w")
    assert len(reader.asked) == 2


def test_a_lost_connection_is_an_error_to_all_that_wait_and_to_nobody_later() -> None:
    reader = Counting(RedisConnectionError("gone"))

    async def scene() -> None:
        decisions = Decisions(reader)
        told = await asyncio.gather(*(decisions.of(STAGES, each, 5.0) for each in "ab"), return_exceptions=True)
        assert [type(each) for each in told] == [RedisConnectionError] * 2
        reader.decided["c"] = decision("c")
        assert await decisions.of(STAGES, "c", 5.0) == decision("c")

    asyncio.run(scene())


@pytest.mark.parametrize("done", [True, False])
def test_a_caller_who_hangs_up_disturbs_nobody(done: bool) -> None:
    reader = Counting()

    async def scene() -> Answered | None:
        decisions = Decisions(reader)
        gone, stays = (asyncio.create_task(decisions.of(STAGES, each, 5.0)) for each in ("gone", "stays"))
        await asyncio.sleep(0.01)
        if done:
            reader.decided["gone"] = decision("gone")
        gone.cancel()
        reader.decided["stays"] = decision("stays")
        return await stays

    assert asyncio.run(scene()) == decision("stays")
