"""The one playground that all kinds of faults are done to, with journeys on it from before."""

import logging
from collections.abc import Iterator

import pytest

from tests.faults.checks import prepared
from tests.faults.playground import Playground

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it says a lot about servers that are down


@pytest.fixture(scope="package")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    with prepared(tmp_path_factory.mktemp("faults")) as made:
        yield made
