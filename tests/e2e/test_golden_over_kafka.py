"""Every golden journey again, on real Kafka and Redis through the running services."""

import pytest

from tests.e2e.conftest import Running
from tests.journey import Journey, journeys
from tests.over_kafka import Played, check, play
from tests.worlds import EXAMPLES

pytestmark = pytest.mark.infra


@pytest.fixture(scope="module")
def played(running: Running) -> Played:
    """All journeys published at once, phase by phase; answers every topic's records."""
    for example in EXAMPLES:
        published = running.refstream("programs", "publish", str(example), "--yes")
        assert published.returncode == 0, published.stdout + published.stderr
    return play(running.settings, journeys())


@pytest.mark.parametrize("journey", journeys(), ids=lambda journey: journey.name)
def test_journey_gives_what_the_rule_promises(journey: Journey, running: Running, played: Played) -> None:
    check(journey, played, running.get)
