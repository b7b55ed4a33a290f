"""`refstream publish`: events from a file to their topics."""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import IO, Annotated

import typer

from schemas.events import Event, UnknownType, Unreadable, parse_event
from schemas.ids import partition_of
from schemas.topics import TOPIC_OF, Topic
from services.cli.state import running_settings
from services.runtime.settings import Settings

MOST_SHOWN = 20
AT_A_TIME = 1_000
FUTURE = timedelta(minutes=5)


def publish(
    file: Annotated[str, typer.Argument(help="File of JSON lines, one CloudEvent each; - for standard input.")],
) -> None:
    """Publish events of the platform to their topics, each under its right key and partition.

    All lines are checked first: where one is wrong, its number and field are reported, nothing is published, and the
    exit code is 1. Publishing a file again changes nothing: events are known by their business ids.
    """
    settings = running_settings()
    with _opened(file) as lines:
        faults = list(_faults(lines, settings))
        if faults:
            for fault in faults[:MOST_SHOWN]:
                print(fault, file=sys.stderr)
            if len(faults) > MOST_SHOWN:
                print(f"… and {len(faults) - MOST_SHOWN} more", file=sys.stderr)
            print(f"nothing published: {len(faults)} lines are wrong", file=sys.stderr)
            raise typer.Exit(1)
        lines.seek(0)
        print(f"published {asyncio.run(_send(lines, settings))} events")


def _opened(file: str) -> IO[bytes]:
    """The file, or a copy of standard input: it is read twice, and may be larger than memory."""
    if file == "-":
        copy = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the caller's `with`
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.seek(0)
        return copy
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}", param_hint="FILE") from None


def _lines(lines: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, line.strip()


def _faults(lines: IO[bytes], settings: Settings) -> Iterator[str]:
    latest = (settings.now() + FUTURE).timestamp() * 1e6
    for number, line in _lines(lines):
        try:
            event, _ = _placed(line)
            if event.time > latest:
                raise Unreadable("time_in_future", "time", "more than 5 minutes ahead of now")
        except Unreadable as error:
            why = str(error).removeprefix(f"{error.reason} {error.field}").strip()
            yield f"line {number}: {error.field or 'the line'}: {why or error.reason}"
        except UnknownType as error:
            yield f"line {number}: type: no event of the platform: {error}"


def _placed(line: bytes) -> tuple[Event, Topic]:
    """The event of a line, and its topic. Only the platform's: each other topic has one writer, which numbers it."""
    event = parse_event(line)
    topic = TOPIC_OF[type(event.data)]
    if not topic.from_outside:
        raise Unreadable("invalid_field", "type", f"{event.type} is written by {topic.writer} alone")
    return event, topic


async def _send(lines: IO[bytes], settings: Settings) -> int:
    from aiokafka import AIOKafkaProducer

    count = 0
    async with AIOKafkaProducer(
        **settings.kafka_client_options(), acks="all", enable_idempotence=True, linger_ms=5
    ) as producer:
        sent = []
        for _, line in _lines(lines):
            event, topic = _placed(line)
            key = topic.key(event.data)
            partition = partition_of(key, settings.partitions)
            sent.append(await producer.send(topic.name, line, key=key.encode(), partition=partition))
            if len(sent) == AT_A_TIME:
                await asyncio.gather(*sent)
                sent.clear()
            count += 1
        await asyncio.gather(*sent)
    return count
