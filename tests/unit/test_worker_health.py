"""What a worker's probes say: alive is a loop that moves, ready are cells that are open."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from services.local import ports
from services.payouts import STAGES
from services.runtime import worker_health
from services.runtime.keeper import TP, Keeper
from services.runtime.metrics import Metrics
from services.runtime.settings import Settings
from services.runtime.worker_health import serve


@contextmanager
def _serving(is_ready: bool = False) -> Iterator[tuple[asyncio.AbstractEventLoop, str]]:
    """A loop in a thread of its own, and the address at which its worker answers."""
    settings = Settings.model_validate({"metrics_port": ports.any_free()})
    loop, begun = asyncio.new_event_loop(), threading.Event()

    async def begin() -> None:
        serve(settings, Metrics("worker"), lambda: is_ready)
        begun.set()

    loop.create_task(begin())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        assert begun.wait(10)
        yield loop, f"http://127.0.0.1:{settings.metrics_port}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _status(address: str) -> int:
    return httpx.get(address, timeout=10, trust_env=False).status_code


def test_a_loop_that_stands_still_is_not_alive_until_it_moves_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_health, "MOVES_WITHIN_SECONDS", 0.2)
    with _serving() as (loop, address):
        assert _status(f"{address}/healthz") == 200
        held = threading.Event()
        loop.call_soon_threadsafe(held.wait)
        try:
            assert _status(f"{address}/healthz") == 503
            assert _status(f"{address}/metrics") == 200  # asked from a thread: it says nothing of the loop
        finally:
            held.set()
        monkeypatch.setattr(worker_health, "MOVES_WITHIN_SECONDS", 10)
        assert _status(f"{address}/healthz") == 200


@pytest.mark.parametrize(("is_ready", "status"), [(True, 200), (False, 503)])
def test_ready_is_another_thing_than_alive(is_ready: bool, status: int) -> None:
    with _serving(is_ready) as (_, address):
        assert (_status(f"{address}/healthz"), _status(f"{address}/readyz")) == (200, status)


async def test_cells_are_open_from_the_end_of_their_opening_until_they_are_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_open = asyncio.Event()

    async def opening(self: Any, partition: int) -> None:
        await may_open.wait()

    monkeypatch.setattr(Keeper, "_open", opening)
    keeper = Keeper(Settings.model_validate({"kafka": "127.0.0.1:1", "redis": "redis://127.0.0.1:1/0"}), STAGES)
    assert not keeper.is_open
    under_way = asyncio.create_task(keeper.open([TP("commissions", 0)]))
    await asyncio.sleep(0.01)
    assert not keeper.is_open
    may_open.set()
    await under_way
    assert keeper.is_open
    await keeper.close()
    assert not keeper.is_open
    await keeper.open([])  # more workers than partitions: nothing to open, and ready for what others leave
    assert keeper.is_open
