"""The one playground that all kinds of faults are done to, with journeys on it from before."""

import logging
from collections.abc import Iterator

import pytest

from tests.faults.checks import BEFORE, FOLDED_SECONDS
from tests.faults.playground import Playground, playground
from tests.journey import journeys
from tests.over_kafka import check, play

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it says a lot about servers that are down


@pytest.fixture(scope="package")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    with playground(tmp_path_factory.mktemp("faults")) as made:
        before = journeys(BEFORE)
        played = play(made.settings, before, FOLDED_SECONDS)
        for journey in before:
            check(journey, played, made.get)
        yield made
