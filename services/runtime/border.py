"""The border: what a stage takes a Kafka record for, before any rule sees it.

A record is an event to fold, a dead letter, a record to put back under its right key, or nothing to this stage.
Only a topic's first reader writes its dead letters and puts records back; the others pass them over.
Source: contract.md, Events.
"""

from typing import Any

import msgspec

from schemas.events import CustomerProfile, DayReached, Event, UnknownType, Unreadable, parse_event
from schemas.ids import partition_of
from schemas.moments import SECOND
from schemas.topics import Topic
from services.runtime.stage import DeadLetter, Record, Stage

MAX_RECORD_BYTES = 256 * 1024
"""Of the platform's records, with key and headers. What follows from one must fit into records of ours."""
FUTURE_SECONDS = 300
"""How far ahead of the broker's clock an event of the platform may be dated."""


class Folded(msgspec.Struct, frozen=True):
    """An event to fold, under its key."""

    key: str
    event: Event


class PutBack(msgspec.Struct, frozen=True):
    """A readable event of the platform under a wrong key or on a wrong partition: it belongs under `key`."""

    key: str


class Ignored(msgspec.Struct, frozen=True):
    """Nothing to this stage, and why."""

    why: str


Taken = Folded | PutBack | DeadLetter | Ignored


def take(record: Record, topic: Topic, stage: Stage[Any, Any], partitions: int, clock_offset_seconds: int = 0) -> Taken:
    """What the stage takes the record for. Errors: none; whatever is wrong with a record is a value."""
    first_reader = topic.first_reader == stage.name
    if topic.from_outside and _size(record) > MAX_RECORD_BYTES:
        return DeadLetter(_place(record), "too_large") if first_reader else Ignored("too_large")
    try:
        event = _event(record, topic)
    except UnknownType:
        return Ignored("unknown_type")
    except Unreadable as error:
        return DeadLetter(record, error.reason, error.field) if first_reader else Ignored("unreadable")
    kind = type(event.data)
    if kind not in topic.types:
        return DeadLetter(record, "invalid_field", "type") if first_reader else Ignored("other_topic")
    key = topic.key(event.data)
    if kind is DayReached and event.time > record.appended_at + clock_offset_seconds * SECOND:
        # A timer's clock may be ahead. Its day comes again, and a month must not be decided before all of its facts.
        return Ignored("in_future")
    if not topic.from_outside:
        # Our own writers may choose another key than the topic's (a customer's own bonus): the record's is right.
        return _folded(stage, record.key.decode("utf-8", "replace") if record.key else key, event)
    latest = record.appended_at + (FUTURE_SECONDS + clock_offset_seconds) * SECOND
    if event.time > latest:
        return DeadLetter(record, "time_in_future", "time") if first_reader else Ignored("in_future")
    if record.key != key.encode() or record.partition != partition_of(key, partitions):
        return PutBack(key) if first_reader else Ignored("wrong_key")
    return _folded(stage, key, event)


def _size(record: Record) -> int:
    size = len(record.key or b"") + len(record.value or b"")
    for name, value in record.headers:
        size += len(name) + len(value or b"")
    return size


def _place(record: Record) -> Record:
    """The record without what makes it large: its dead letter says where it stands."""
    return msgspec.structs.replace(record, key=None, value=None, headers=())


def _folded(stage: Stage[Any, Any], key: str, event: Event) -> Folded | Ignored:
    """The event under the topic's key, or under the one that the stage gives it."""
    own = key if stage.key is None else stage.key(event)
    return Ignored("of_another_stage") if own is None else Folded(own, event)


def _event(record: Record, topic: Topic) -> Event:
    if record.value is None and topic.compacted:
        return _forgotten(record)
    return parse_event(record.value)


def _forgotten(record: Record) -> Event:
    """A record without value on a compacted topic forgets its key: a profile with nothing in it."""
    key = (record.key or b"").decode("utf-8", "replace")
    try:
        data = CustomerProfile(customer_id=key)
    except ValueError:
        raise Unreadable("invalid_field", "key") from None
    return Event(id=f"{record.topic}-{record.partition}-{record.offset}", source="", time=record.appended_at, data=data)
