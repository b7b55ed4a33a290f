"""Opening cells ends, one way or the other: a worker that hangs in it would keep its partitions from everybody."""

import asyncio
from typing import Any

import pytest

from services.payouts import STAGES
from services.runtime import kafka_log, keeper, recovery
from services.runtime.kafka_log import KafkaLogReader
from services.runtime.settings import Settings

SETTINGS = Settings.model_validate({"kafka": "127.0.0.1:1", "redis": "redis://127.0.0.1:1/0"})


class _NeverStops:
    async def start(self) -> None: ...

    def assign(self, *_: Any) -> None: ...

    def pause(self, *_: Any) -> None: ...

    async def stop(self) -> None:
        await asyncio.Event().wait()


class _Ended(BaseException):
    """Where the process would have ended."""


def _ended(code: int) -> None:
    raise _Ended(code)


def test_a_consumer_that_never_stops_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_log, "AIOKafkaConsumer", lambda **options: _NeverStops())
    monkeypatch.setattr(kafka_log, "STOP_SECONDS", 0.01)

    async def read() -> None:
        async with KafkaLogReader(SETTINGS, ["payments"], 0):
            pass

    asyncio.run(asyncio.wait_for(read(), 10))


def test_a_worker_whose_cells_do_not_open_and_do_not_move_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    folded = 0

    async def opened(cell: Any, reader: Any, tell: Any, progress: Any) -> list[Any]:
        nonlocal folded
        for _ in range(5):  # a rebuild that is slow, and then stuck
            await asyncio.sleep(0.1)
            progress(1_000)
            folded += 1_000
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(kafka_log, "AIOKafkaConsumer", lambda **options: _NeverStops())
    monkeypatch.setattr(kafka_log, "STOP_SECONDS", 0.01)
    monkeypatch.setattr(recovery, "opened", opened)
    monkeypatch.setattr(keeper, "STALLED_SECONDS", 0.3)
    monkeypatch.setattr(keeper, "end", _ended)

    async def open_all() -> None:
        cells = keeper.Keeper(SETTINGS, STAGES)
        await cells.open([keeper.TP(topic.name, 0) for stage in STAGES for topic in stage.reads])

    with pytest.raises(_Ended):
        asyncio.run(asyncio.wait_for(open_all(), 20))
    assert folded == 5_000
