"""Nothing that tells of a person leaves its place: errors, logs and topics' settings."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from schemas.events import PAYLOADS, Payload, Unreadable, parse_event
from schemas.generate import example
from schemas.topics import PROFILES, TOPICS
from services.runtime.settings import Settings
from services.runtime.topics_admin import wanted
from tests.worlds import all_stages

CANARY = "canary.yellow@feather.example"
FROM_OUTSIDE = sorted(
    (kind for topic in TOPICS if topic.from_outside for kind in topic.types), key=lambda kind: kind.type
)
WRONG: tuple[Any, ...] = ({"x": CANARY}, [CANARY], CANARY)


@pytest.mark.parametrize("kind", FROM_OUTSIDE, ids=lambda kind: kind.type)
def test_what_is_wrong_with_an_event_is_said_without_its_values(kind: type[Payload]) -> None:
    good = example(kind)
    for field in good["data"]:
        for wrong in WRONG:
            record = {**good, "data": {**good["data"], field: wrong}}
            try:
                parse_event(json.dumps(record).encode())
            except Unreadable as error:
                if field != "quantity_gb":  # a number that is none is repeated, to be found
                    assert CANARY not in str(error)
            try:
                PAYLOADS[kind.type].model_validate({**good["data"], field: wrong})
            except ValidationError as error:
                if field != "quantity_gb":
                    assert CANARY not in str(error)


def test_who_is_forgotten_stays_so_on_the_log() -> None:
    (profiles,) = [topic for topic in wanted(1) if topic.name == PROFILES.name]
    forever = int(profiles.configs["delete.retention.ms"])
    assert forever > 50 * 365 * 86_400_000
    assert forever + 4_000_000_000_000 < 2**63  # Kafka adds it to the clock
    assert not any("delete.retention.ms" in topic.configs for topic in wanted(1) if topic.name != PROFILES.name)


def test_profiles_are_read_in_one_place() -> None:
    assert [stage.name for stage in all_stages() if PROFILES in stage.reads] == ["attribution.profiles"]


def test_data_secrets_come_from_the_environment_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFSTREAM_DATA_SECRETS", '{"1": "old", "2": "new"}')
    settings = Settings()
    assert list(settings.data_secrets) == ["1", "2"]
    assert "old" not in repr(settings)
