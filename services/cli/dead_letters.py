"""`refstream dead-letters`: the records that nobody could use, looked at, mended and played again."""

import asyncio
import base64
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import TypeAdapter, ValidationError

from schemas.events import PAYLOADS, UnknownType, Unreadable, parse_event
from schemas.ids import Id, partition_of
from schemas.moments import format_instant
from schemas.topics import BY_NAME, DEAD_LETTERS, TOPIC_OF, Topic
from services.cli.state import running_settings
from services.cli.topic_log import Entry, entries
from services.runtime.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    help="Records that could not be used: not readable, dated in the future, contradicting an earlier one. Nothing is "
    "lost: each stands here as it came, with the reason, the field at fault and where it stood.",
)

Result = TypeVar("Result")
_POSITION = re.compile(r"(\d{1,4}):(\d{1,18})")
_ID = TypeAdapter[str](Id)

Reason = Annotated[str | None, typer.Option(help="Only this reason, such as conflicting_repeat.")]
FromTopic = Annotated[str | None, typer.Option(help="Only records that came from this topic.")]


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


# --- list -----------------------------------------------------------------------------------------------------------


@app.command("list")
def list_letters(
    topic: FromTopic = None,
    reason: Reason = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to show, the newest.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: a list of objects.")] = False,
) -> None:
    """List the dead letters, newest last: why, which field, where from, what about. Shows nothing personal."""
    found = asyncio.run(_letters(running_settings(), _chosen(reason, topic)))
    shown = found[-limit:]
    if as_json:
        print(json.dumps([letter.row() for letter in shown], indent=2))
        return
    if not found:
        print("no dead letters")
        return
    _print_table(shown)
    counts = Counter(letter.reason for letter in found)
    print(f"{len(found)} dead letters: {', '.join(f'{count} {why}' for why, count in counts.most_common())}")
    if len(shown) < len(found):
        print(f"the newest {len(shown)} are shown; --limit shows more")


def _print_table(letters: Sequence[Letter]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    table = Table("position", "since", "reason", "field", "came from", "about", box=SIMPLE, pad_edge=False)
    for letter in letters:
        row = letter.row()
        cells = (letter.position, row["dead_since"][:19], letter.reason, letter.field, letter.came_from, row["about"])
        table.add_row(*(Text(cell, overflow="fold") for cell in cells))  # Text: a record may hold [markup]
    console.print(table)


def _chosen(reason: str | None, topic: str | None) -> Callable[[Letter], bool]:
    return lambda letter: reason in (None, letter.reason) and topic in (None, letter.topic)


async def _letters(settings: Settings, chosen: Callable[[Letter], bool]) -> list[Letter]:
    """The chosen letters, oldest first."""
    found = [letter async for entry in entries(settings, [DEAD_LETTERS.name]) if chosen(letter := Letter(entry))]
    return sorted(found, key=lambda letter: (letter.entry.timestamp_ms, letter.entry.partition, letter.entry.offset))


# --- show -----------------------------------------------------------------------------------------------------------


@app.command("show")
def show_letter(
    position: Annotated[str, typer.Argument(help="Where it stands, as `list` tells: PARTITION:OFFSET.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one object.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Only the record, byte for byte: to mend it in a file.")] = False,
) -> None:
    """Show one dead letter with the record as it came. The record may hold personal data."""
    (letter,) = _or_exit(lambda: asyncio.run(_at(running_settings(), [position])))
    value = letter.entry.value
    if raw:
        sys.stdout.buffer.write(value or b"")
        sys.stdout.buffer.flush()
        return
    if as_json:
        told = letter.row() | {"key": _text(letter.entry.key), "value": _text(value)}
        if value is not None and told["value"] is None:
            told["value_base64"] = base64.b64encode(value).decode()
        print(json.dumps(told, indent=2))
        return
    for name, shown in letter.row().items():
        print(f"{name:<11} {shown}")
    print(f"{'key':<11} {letter.entry.key!r}")
    print(json.dumps(letter.told, indent=2, ensure_ascii=False) if letter.told else repr(value))


def _text(raw: bytes | None) -> str | None:
    """Bytes as text; None where they are no UTF-8."""
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError:
        return None


async def _at(settings: Settings, positions: Sequence[str]) -> list[Letter]:
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


# --- replay ---------------------------------------------------------------------------------------------------------


@app.command("replay")
def replay(
    positions: Annotated[
        list[str] | None, typer.Argument(metavar="[POSITION]…", help="Which, as `list` tells: PARTITION:OFFSET.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that --reason and --topic choose.")] = False,
    reason: Reason = None,
    topic: FromTopic = None,
    file: Annotated[
        Path | None, typer.Option(help="A mended record to publish instead of the one POSITION's.", dir_okay=False)
    ] = None,
) -> None:
    """Publish dead letters again, each to the topic that it came from, under the right key.

    For records whose reason has passed: a time that was in the future, a field that a newer version knows. What is
    still wrong becomes a dead letter again. Events are known by their business ids, so what was taken in meanwhile
    changes nothing when it comes once more. `dead-letters show POSITION --raw > FILE` gives a record to mend; a mended
    one is checked before it is published.
    """
    if everything == bool(positions):
        raise typer.BadParameter("name positions, or --all")
    if positions and (reason or topic):
        raise typer.BadParameter("--reason and --topic go with --all")
    if file and (everything or len(positions or ()) != 1):
        raise typer.BadParameter("--file mends exactly one POSITION", param_hint="--file")
    settings = running_settings()

    def run() -> int:
        if everything:
            found = asyncio.run(_letters(settings, _chosen(reason, topic)))
            letters = [letter for letter in found if _replayable(letter)]
            if len(letters) < len(found):
                left_out = len(found) - len(letters)
                print(f"{left_out} came from topics that refstream alone writes, or were too large: not replayed")
        else:
            letters = asyncio.run(_at(settings, positions or ()))
        records = [again(letter) for letter in letters] if file is None else [mended(letters[0], file)]
        return asyncio.run(_publish(settings, records))

    print(f"published {_or_exit(run)} records again")


@dataclass(frozen=True, slots=True)
class Again:
    """A record to publish. `partition`: where it stood, for one without any key."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int


def _replayable(letter: Letter) -> bool:
    """Whether it came from the platform, and stands here: records of ours are numbered by their one writer."""
    return letter.topic in BY_NAME and BY_NAME[letter.topic].from_outside and letter.reason != "too_large"


def again(letter: Letter) -> Again:
    """The record as it came, under the key that its id gives, else the key it had. Errors: LetterRefused."""
    if letter.reason == "too_large":
        raise LetterRefused(f"{letter.position} was too large: mend the record at {letter.came_from}, and give --file")
    if not _replayable(letter):
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


def mended(letter: Letter, file: Path) -> Again:
    """The mended record, checked. Errors: LetterRefused that names what is still wrong."""
    try:
        value = file.read_bytes().strip()
        event = parse_event(value)
    except OSError as error:
        raise LetterRefused(f"{file}: {error.strerror}") from None
    except Unreadable as error:
        why = str(error).removeprefix(f"{error.reason} {error.field}").strip()
        raise LetterRefused(f"{file}: {error.field or error.reason}: {why or error.reason}") from None
    except UnknownType as error:
        raise LetterRefused(f"{file}: type: no event of the platform: {error}") from None
    topic = TOPIC_OF[type(event.data)]
    if topic.name != letter.topic:
        raise LetterRefused(f"{file}: {event.type} belongs on {topic.name}, but the record came from {letter.topic}")
    return Again(topic.name, topic.key(event.data).encode(), value, 0)


async def _publish(settings: Settings, records: Sequence[Again]) -> int:
    from aiokafka import AIOKafkaProducer

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


def _or_exit(do: Callable[[], Result]) -> Result:
    """Do it; a refusal is a message and exit code 1."""
    try:
        return do()
    except LetterRefused as refused:
        print(f"refstream: {refused}", file=sys.stderr)
        raise typer.Exit(1) from refused
