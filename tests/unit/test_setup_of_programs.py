"""The shipped programs are published also where Kafka needs a while."""

import asyncio

import pytest

from schemas.events import Event
from schemas.programs import shipped
from services.attribution import setup
from services.runtime.http.problems import Problem, unavailable
from services.runtime.settings import Settings


class _SlowLog:
    """A command log of a Kafka whose topics have no leaders yet, for so many writes."""

    def __init__(self, refusals: int) -> None:
        self.refusals, self.written = refusals, list[str]()

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def write(self, command: Event, key: str) -> None:
        if self.refusals:
            self.refusals -= 1
            raise unavailable()
        self.written.append(key)


def _publish(log: _SlowLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "CommandLog", lambda settings: log)
    monkeypatch.setattr(setup, "PAUSE_SECONDS", 0)
    asyncio.run(setup.publish_shipped(Settings()))


def test_topics_that_have_no_leader_yet_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    log = _SlowLog(refusals=3)
    _publish(log, monkeypatch)
    assert log.written == [program.program_id for program in shipped()]


def test_a_kafka_that_never_takes_them_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "WAIT_SECONDS", 0)
    with pytest.raises(Problem):
        _publish(_SlowLog(refusals=10), monkeypatch)
