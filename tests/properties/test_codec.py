"""Reading and writing an event as fast as it goes gives, byte for byte and fault for fault, what the plain way gives.

The plain way is written here: the envelope by its model, the data by its model, the JSON by `model_dump`.
"""

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas import commands, internal  # noqa: F401  # their payloads are registered
from schemas.events import PAYLOADS, Envelope, Event, UnknownType, Unreadable, event_json, parse_event
from schemas.generate import example
from schemas.moments import WIRE, NoOffset, format_instant, parse_instant
from schemas.money import MAX_MINOR

Fault = tuple[str, str]


def _plainly_read(value: bytes) -> Event | Fault | None:
    """The event, or the fault, or None for an unknown type."""
    try:
        raw = orjson.loads(value)
    except orjson.JSONDecodeError:
        return ("not_json", "")
    try:
        envelope = Envelope.model_validate(raw)
    except ValidationError as error:
        return ("not_cloudevent", _field(error))
    payload = PAYLOADS.get(envelope.type)
    if payload is None:
        return None
    try:
        time = parse_instant(envelope.time)
    except NoOffset:
        return ("time_without_offset", "time")
    except ValueError:
        return ("invalid_field", "time")
    if not isinstance(envelope.data, dict):
        return ("invalid_field", "data")
    try:
        data = payload.model_validate(envelope.data, context=WIRE)
    except ValidationError as error:
        cause = error.errors()[0].get("ctx", {}).get("error")
        return ("time_without_offset" if isinstance(cause, NoOffset) else "invalid_field", f"data.{_field(error)}")
    return Event(envelope.id, envelope.source, time, data)


def _field(error: ValidationError) -> str:
    return ".".join(map(str, error.errors()[0]["loc"]))


def _read(value: bytes) -> Event | Fault | None:
    try:
        return parse_event(value)
    except Unreadable as error:
        return (error.reason, error.field)
    except UnknownType:
        return None


def _plainly_written(event: Event) -> bytes:
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": event.id,
            "source": event.source,
            "type": event.type,
            "time": format_instant(event.time),
            "datacontenttype": "application/json",
            "data": event.data.model_dump(mode="json", exclude_none=True),
        }
    )


def _agree(raw: Any) -> Event | None:
    value = orjson.dumps(raw)
    read = _read(value)
    assert read == _plainly_read(value)
    if not isinstance(read, Event):
        return None
    assert event_json(read) == _plainly_written(read)
    return read


@pytest.mark.parametrize("minimal", [False, True], ids=["full", "minimal"])
@pytest.mark.parametrize("name", sorted(PAYLOADS))
def test_event_of_every_type_is_read_and_written_the_same(name: str, minimal: bool) -> None:
    assert _agree(example(PAYLOADS[name], minimal)) is not None


EXAMPLES = [example(payload) for payload in PAYLOADS.values()]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.one_of(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**63), 2**64 - 1) | st.sampled_from((0, 1, MAX_MINOR, MAX_MINOR + 1, 2**63 - 1)),
    TEXT | st.from_regex(r"[A-Za-z0-9._:@-]{1,129}", fullmatch=True) | st.sampled_from((*PAYLOADS, "1.0", "USD")),
    st.sampled_from(("2026-02-28T12:00:00Z", "2026-02-28T12:00:00.5+02:00", "2026-02-28T12:00:00", "0001-01-01")),
    st.sampled_from(("0.20", "2", "-1", "1e3", "0.123456789012345678", "1.5")),
    st.lists(TEXT, max_size=2) | st.dictionaries(TEXT, TEXT | st.integers(0, 9), max_size=2),
    st.fixed_dictionaries({"minor": st.integers(-1, MAX_MINOR + 1), "currency": st.sampled_from(("USD", "usd", 1))}),
)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    own = [(value, key) for key in value] if isinstance(value, dict) else []
    own = [(value, index) for index in range(len(value))] if isinstance(value, list) else own
    return own + [place for container, key in own for place in _places(container[key])]


@given(st.sampled_from(EXAMPLES), st.data())
def test_whatever_stands_in_a_record_is_read_refused_and_written_the_same(given_: Any, data: st.DataObject) -> None:
    raw = copy.deepcopy(given_)
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(_places(raw)))
        change = data.draw(st.sampled_from(("set", "set", "remove", "add")))
        if change == "set" or isinstance(container, list):
            container[key] = data.draw(VALUES)
        elif change == "add":
            container[data.draw(TEXT)] = data.draw(VALUES)
        elif len(raw) > 1:
            del container[key]
    _agree(raw)


@given(st.recursive(VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)))
def test_json_that_is_no_event_is_refused_the_same(raw: Any) -> None:
    _agree(raw)
