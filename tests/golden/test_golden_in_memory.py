"""Every golden journey, in memory: over several interleavings, with and without owners that die."""

import pytest

from services.runtime.simulate import World
from tests.journey import GOLDEN, Journey, journeys
from tests.worlds import check, examples, verify_asked, world


def _play(journey: Journey, made: World) -> World:
    for phase in journey.phases():
        made.publish(*phase)
        verify_asked(made.run())
    return made


@pytest.mark.parametrize("journey", journeys(), ids=lambda journey: journey.name)
@pytest.mark.parametrize(("seed", "crashes"), [(0, 0.0), (1, 0.0), (2, 0.3)])
def test_journey_gives_what_the_rule_promises(journey: Journey, seed: int, crashes: float) -> None:
    made = _play(journey, world(seed, partitions=3, crashes=crashes, programs=examples()))
    check(journey, made)


def test_what_a_journey_expects_names_an_id_of_its_own() -> None:
    """Over Kafka all journeys are played at once, and one must not see what another brings about."""
    lines = [(path.name, line) for path in GOLDEN.glob("*/*.jsonl") for line in path.read_text().splitlines()]
    expected = [
        (name, line) for name, line in lines if line.startswith(('{"out"', '{"none"', '{"balance"', '{"wallet"'))
    ]
    assert [(name, line) for name, line in expected if "~" not in line] == []
