"""Waiting until what is in the topics has passed: positions first, then what was decided must have been sent."""

import asyncio
from collections.abc import Iterable

import pytest

from services.runtime import barrier
from services.runtime.barrier import Step, passed

STEPS = (Step("first", ("in",)), Step("second", ("between",)))


class Cells:
    """Positions and outboxes of both stages' only cell, as Redis holds them; `looks` counts the questions."""

    def __init__(self) -> None:
        self.meta: dict[str, dict[str, int]] = {"{first:0}:meta": {}, "{second:0}:meta": {}}
        self.outbox: dict[str, list[bytes]] = {}
        self.ends = {("in", 0): 3, ("between", 0): 0}

    async def hmget(self, name: str, fields: list[str]) -> list[bytes | None]:
        return [str(self.meta[name][field]).encode() if field in self.meta[name] else None for field in fields]

    async def hkeys(self, name: str) -> list[bytes]:
        return list(self.outbox.get(name, []))

    async def end_offsets(self, topics: Iterable[str]) -> dict[tuple[str, int], int]:
        return {at: end for at, end in self.ends.items() if at[0] in topics}


def test_records_have_passed_when_they_are_folded_and_what_followed_is_sent_and_folded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(barrier, "LOOK_SECONDS", 0.001)
    cells = Cells()

    async def scene() -> None:
        waiting = asyncio.create_task(passed(cells, cells.end_offsets, STEPS, 1))

        async def still_waits() -> None:
            await asyncio.sleep(0.03)
            assert not waiting.done()

        cells.meta["{first:0}:meta"] = {"position:in": 2, "outbox": 6}
        await still_waits()
        cells.outbox["{first:0}:outbox"] = [b"7", b"8"]
        cells.meta["{first:0}:meta"] = {"position:in": 3, "outbox": 7}
        await still_waits()
        cells.ends["between", 0] = 5
        cells.outbox["{first:0}:outbox"] = [b"8"]  # decided after the records that are waited for
        await still_waits()
        cells.meta["{second:0}:meta"] = {"position:between": 5}
        await asyncio.wait_for(waiting, 5)

    asyncio.run(scene())


def test_nothing_to_wait_for_is_no_wait() -> None:
    cells = Cells()
    cells.ends = {("in", 0): 0, ("between", 0): 0}
    asyncio.run(asyncio.wait_for(passed(cells, cells.end_offsets, STEPS, 1), 1))
