"""Dead letters: records that nobody could use, found, and played again where they came from."""

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from schemas.events import PAYLOADS
from schemas.ids import Id, partition_of
from schemas.moments import format_instant
from schemas.topics import BY_NAME, DEAD_LETTERS, Topic
from services.runtime.settings import Settings
from services.runtime.topic_log import Entry, entries

_POSITION = re.compile(r"([0-9]{1,4}):([0-9]{1,18})")
_ID = TypeAdapter[str](Id)


class LetterRefused(Exception):
    """A dead letter that is not there, or cannot be played again. The message says why, and what can be done."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter. `topic`, `partition`, `offset`: where the record stood; `position`: where the letter stands."""

    entry: Entry

    @property
    def position(self) -> str:
        return self.entry.position

    @property
    def reason(self) -> str:
        return self.entry.header("reason")

    @property
    def field(self) -> str:
        return self.entry.header("field")

    @property
    def topic(self) -> str:
        return self.entry.header("topic")

    @property
    def came_from(self) -> str:
        return f"{self.topic} {self.entry.header('partition')}:{self.entry.header('offset')}"

    @property
    def told(self) -> dict[str, Any]:
        """The record as far as it is a JSON object; else nothing."""
        try:
            told = json.loads(self.entry.value or b"")
        except (ValueError, RecursionError):
            return {}
        return told if isinstance(told, dict) else {}

    def about(self) -> str:
        """Its type and its business id, as far as they can be read: nothing personal."""
        told = self.told
        kind, data = str(told.get("type", ""))[:60], told.get("data")
        kind = kind if kind.isprintable() else repr(kind)
        known = data if isinstance(data, dict) else {}
        names = ("payment_id", "subscription_id", "account_id", "customer_id")
        own = next((known[name] for name in names if _is_id(known.get(name))), "")
        return f"{kind} {own}".strip()

    def row(self) -> dict[str, Any]:
        """What a list shows, for machines."""
        return {
            "position": self.position,
            "dead_since": format_instant(self.entry.timestamp_ms * 1000),
            "reason": self.reason,
            "field": self.field,
            "service": self.entry.header("service"),
            "topic": self.topic,
            "partition": self.entry.header("partition"),
            "offset": self.entry.header("offset"),
            "about": self.about(),
        }


def _is_id(value: Any) -> bool:
    try:
        _ID.validate_python(value)
    except ValidationError:
        return False
    return True


def chosen(reason: str | None = None, topic: str | None = None) -> Callable[[Letter], bool]:
    """By reason and by the topic they came from; None: whichever."""
    return lambda letter: reason in (None, letter.reason) and topic in (None, letter.topic)


async def find_letters(settings: Settings, is_chosen: Callable[[Letter], bool]) -> list[Letter]:
    """The chosen letters, oldest first."""
    found = [letter async for entry in entries(settings, [DEAD_LETTERS.name]) if is_chosen(letter := Letter(entry))]
    return sorted(found, key=lambda letter: (letter.entry.timestamp_ms, letter.entry.partition, letter.entry.offset))


async def letters_at(settings: Settings, positions: Sequence[str]) -> list[Letter]:
    """The letters at these positions, in this order. Errors: LetterRefused for one that is not there."""
    found = []
    for position in positions:
        match = _POSITION.fullmatch(position)
        if not match:
            raise LetterRefused(f"{position!r} is no position: write PARTITION:OFFSET, as `dead-letters list` shows it")
        partition, offset = int(match[1]), int(match[2])
        letter = await _one(settings, partition, offset) if partition < settings.partitions else None
        if letter is None:
            raise LetterRefused(f"there is no dead letter at {position}")
        found.append(letter)
    return found


async def _one(settings: Settings, partition: int, offset: int) -> Letter | None:
    reading = entries(settings, [DEAD_LETTERS.name], partition, since=offset)
    try:
        async for entry in reading:
            return Letter(entry) if entry.offset == offset else None
    finally:
        await reading.aclose()  # type: ignore[attr-defined]
    return None


@dataclass(frozen=True, slots=True)
class Again:
    """A record to publish. `partition`: where it stood, for one without any key."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int


def replayable(letter: Letter) -> bool:
    """Whether it came from the platform, and stands here: records of ours are numbered by their one writer."""
    return letter.topic in BY_NAME and BY_NAME[letter.topic].from_outside and letter.reason != "too_large"


def again(letter: Letter) -> Again:
    """The record as it came, under the key that its id gives, else the key it had. Errors: LetterRefused."""
    if letter.reason == "too_large":
        raise LetterRefused(f"{letter.position} was too large: mend the record at {letter.came_from}, and give --file")
    if not replayable(letter):
        raise LetterRefused(
            f"{letter.position} came from {letter.topic or 'no topic'}, which refstream alone writes: not replayed"
        )
    topic, stood = BY_NAME[letter.topic], letter.entry.header("partition")
    key = _key_in(letter.told, topic)
    return Again(
        topic.name,
        letter.entry.key if key is None else key.encode(),
        letter.entry.value,
        int(stood) if stood.isdigit() else 0,
    )


def _key_in(told: dict[str, Any], topic: Topic) -> str | None:
    """The key that a record's own id gives, also where the rest of it is wrong."""
    payload, data = PAYLOADS.get(str(told.get("type"))), told.get("data")
    if payload not in topic.types or not isinstance(data, dict):
        return None
    key = data.get(topic.key_name.replace(" ", "_"))
    return key if isinstance(key, str) and _is_id(key) else None


async def publish_again(settings: Settings, records: Sequence[Again]) -> int:
    """How many were published. Raises KafkaError where Kafka does not take them."""
    from aiokafka import AIOKafkaProducer  # not for every command that only names letters

    if not records:
        return 0
    async with AIOKafkaProducer(
        **settings.kafka_client_options(), acks="all", enable_idempotence=True, linger_ms=5
    ) as producer:
        sent = []
        for record in records:
            partition = record.partition if record.key is None else partition_of(record.key, settings.partitions)
            sent.append(await producer.send(record.topic, record.value, key=record.key, partition=partition))
        await asyncio.gather(*sent)
    return len(records)
