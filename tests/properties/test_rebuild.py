"""Whatever Redis loses, and whenever: the log gives it back, byte for byte, and nobody earns or loses by it.

The same shuffled history is folded by cells that die and forget, and by cells that do not; then every cell is folded
once more from the log alone.
"""

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime import recovery
from services.runtime.cell import Cell
from services.runtime.memory import MemoryStore
from services.runtime.recovery import MemoryLogReader
from services.runtime.simulate import World
from tests.journey import Journey, journeys
from tests.worlds import examples, told, verify_asked, world

OWN = ("epoch", "ready", "sent")
"""Fields of a cell's meta that are an owner's and no fact."""


def _play(journey: Journey, seed: int, crashes: float, losses: float) -> World:
    made = world(seed, partitions=2, crashes=crashes, losses=losses, programs=examples())
    for phase in journey.phases():
        made.publish(*phase)
        verify_asked(made.run())
    return made


def _facts(store: MemoryStore) -> Mapping[str, Any]:
    meta = {name: value for name, value in store.meta.items() if name not in OWN}
    rows = {key: rows for key, rows in store.rows.items() if rows}
    return {"meta": meta, "states": store.states, "rows": rows, "find": store.find, "answers": store.answers}


async def _folded_again(made: World, stage: str, partition: int) -> MemoryStore:
    store = MemoryStore()
    cell = Cell(made.stages[stage], partition, made.partitions, store, lambda: made.programs, made.stages, made.codec)
    await recovery.opened(cell, MemoryLogReader(made.log, partition))
    assert not cell.said_differently
    return store


@pytest.mark.parametrize("journey", journeys(), ids=lambda journey: journey.name)
def test_the_log_gives_every_cell_again_byte_for_byte(journey: Journey) -> None:
    made = _play(journey, seed=3, crashes=0.2, losses=0.0)
    for stage, partition in made.stores:
        assert _facts(asyncio.run(_folded_again(made, stage, partition))) == _facts(made.stores[stage, partition])


@given(seed=st.integers(0, 2**32), which=st.integers(0, 2**16))
def test_memory_that_is_lost_at_any_time_changes_nothing_that_is_said(seed: int, which: int) -> None:
    journey = journeys()[which % len(journeys())]
    made = _play(journey, seed, crashes=0.1, losses=0.2)
    for stage, partition in made.stores:
        assert _facts(asyncio.run(_folded_again(made, stage, partition))) == _facts(made.stores[stage, partition])
    everything = random.Random(seed).choice([True, False])
    before = told(made)
    for name in made.stores:
        if everything or name[0].startswith("commission"):
            made.lose(name)
    made.run()
    assert told(made) == before
