"""Golden events: what was once on a log is read the same by every later version.

`samples/<type>.json` has every field of a type, `<type>.2.json` … what was added later, `<type>.minimal.json` what the
platform must give at least. `python -m schemas.generate --samples` writes those that are missing and replaces none.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import create_model

from schemas.events import PAYLOADS, Event, Payload, Unreadable, event_json, parse_event
from schemas.generate import SAMPLES, has_minimal, uncovered
from schemas.programs.terms import Program
from schemas.topics import TOPIC_OF

FULL = sorted(path for path in SAMPLES.glob("*.json") if not path.name.endswith(".minimal.json"))
MINIMAL = sorted(SAMPLES.glob("*.minimal.json"))
OF_THE_PLATFORM = [path for path in FULL + MINIMAL if json.loads(path.read_bytes())["source"] == "platform"]
WRITE_IT = "run `python -m schemas.generate --samples` and commit what it writes"


def _name(path: Path) -> str:
    return path.stem


def _golden(path: Path) -> dict[str, Any]:
    golden: dict[str, Any] = json.loads(path.read_bytes())
    return golden


def _read(golden: dict[str, Any]) -> Event:
    return parse_event(json.dumps(golden).encode())


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=lambda payload: payload.type)
def test_every_field_of_every_type_has_a_golden_sample(payload: type[Payload]) -> None:
    assert uncovered(payload) == [], WRITE_IT
    assert (SAMPLES / f"{payload.type}.minimal.json").exists() == has_minimal(payload), WRITE_IT


@pytest.mark.parametrize("path", FULL + MINIMAL, ids=_name)
def test_sample_belongs_to_a_type_that_still_exists(path: Path) -> None:
    golden = _golden(path)
    assert golden["type"] in PAYLOADS
    assert path.name.startswith(f"{golden['type']}.")


@pytest.mark.parametrize("path", FULL, ids=_name)
def test_full_sample_is_written_again_as_it_was_read(path: Path) -> None:
    golden = _golden(path)
    event = _read(golden)
    assert type(event.data) is PAYLOADS[golden["type"]]
    assert json.loads(event_json(event)) == golden
    assert parse_event(event_json(event)) == event


@pytest.mark.parametrize("path", MINIMAL, ids=_name)
def test_minimal_sample_is_read_and_what_it_leaves_out_means_nothing(path: Path) -> None:
    golden = _golden(path)
    event = _read(golden)
    assert event.data.model_dump(mode="json", exclude_unset=True) == golden["data"]
    left_out = set(type(event.data).model_fields) - set(golden["data"])
    assert left_out
    assert [name for name in left_out if getattr(event.data, name)] == []
    assert parse_event(event_json(event)) == event


@pytest.mark.parametrize("path", OF_THE_PLATFORM, ids=_name)
def test_field_that_a_newer_platform_adds_is_ignored(path: Path) -> None:
    golden = _golden(path)
    newer = {**golden, "traceparent": "00-1", "data": {**golden["data"], "added_in_2031": {"minor": -1}}}
    assert _read(newer) == _read(golden)
    assert b"added_in_2031" not in event_json(_read(newer))


@pytest.mark.parametrize("path", MINIMAL, ids=_name)
def test_each_required_field_is_missed_by_name(path: Path) -> None:
    golden = _golden(path)
    for name in golden["data"]:
        data = {field: value for field, value in golden["data"].items() if field != name}
        with pytest.raises(Unreadable) as caught:
            _read({**golden, "data": data})
        assert (caught.value.reason, caught.value.field) == ("invalid_field", f"data.{name}")


def test_program_document_of_an_old_log_is_still_one() -> None:
    for path in SAMPLES.glob("program.published*.json"):
        document = _golden(path)["data"]["document"]
        assert Program.model_validate(document).as_document() == document


def _without(payload: type[Payload], name: str, rename: bool) -> type[Payload]:
    """The payload as a later version that removed or renamed a field."""
    fields: dict[str, Any] = {
        (f"{field}_renamed" if field == name else field): (info.rebuild_annotation(), info)
        for field, info in payload.model_fields.items()
        if field != name or rename
    }
    later = create_model("Later", __base__=Payload, **fields)
    later.type = payload.type
    return later


@pytest.mark.parametrize("rename", [False, True], ids=["removed", "renamed"])
@pytest.mark.parametrize("name", ["account_id", "amount", "quantity_gb", ""])
def test_these_tests_notice_a_field_that_is_gone(monkeypatch: pytest.MonkeyPatch, name: str, rename: bool) -> None:
    path = SAMPLES / "payment.succeeded.json"
    monkeypatch.setitem(PAYLOADS, "payment.succeeded", _without(PAYLOADS["payment.succeeded"], name, rename))
    if not name:  # the means of this test loses nothing by itself
        test_full_sample_is_written_again_as_it_was_read(path)
        return
    with pytest.raises((AssertionError, Unreadable)):
        test_full_sample_is_written_again_as_it_was_read(path)


def test_every_registered_type_is_on_a_topic() -> None:
    assert {payload.type for payload in PAYLOADS.values()} == {payload.type for payload in TOPIC_OF}
