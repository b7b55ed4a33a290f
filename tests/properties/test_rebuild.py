"""Whatever Redis loses, and whenever: the log gives it back, byte for byte, and nobody earns or loses by it.

The same shuffled history is folded by cells that die and forget, and by cells that do not; then every cell is folded
once more from the log alone.
"""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.simulate import World
from tests.journey import Journey, journeys
from tests.worlds import check, examples, follows_from_the_log, told, verify_asked, world


def _play(journey: Journey, seed: int, crashes: float, losses: float) -> World:
    made = world(seed, partitions=2, crashes=crashes, losses=losses, programs=examples())
    for phase in journey.phases():
        made.publish(*phase)
        verify_asked(made.run())
    return made


@pytest.mark.parametrize("journey", journeys(), ids=lambda journey: journey.name)
def test_the_log_gives_every_cell_again_byte_for_byte(journey: Journey) -> None:
    follows_from_the_log(_play(journey, seed=3, crashes=0.2, losses=0.0))


@given(seed=st.integers(0, 2**32), which=st.integers(0, 2**16))
def test_memory_that_is_lost_at_any_time_changes_nothing_that_is_said(seed: int, which: int) -> None:
    journey = journeys()[which % len(journeys())]
    made = _play(journey, seed, crashes=0.1, losses=0.2)
    check(journey, made)
    follows_from_the_log(made)
    everything = random.Random(seed).choice([True, False])
    before = told(made)
    for name in made.stores:
        if everything or name[0].startswith("commission"):
            made.lose(name)
    made.run()
    assert told(made) == before
