"""The shipped programs, published as first versions where no version is published yet."""

import asyncio
import hashlib
import time

from schemas.commands import Answered, PublishProgram
from schemas.events import Event
from schemas.ids import derived_id
from schemas.moments import micros
from schemas.programs import shipped
from schemas.programs.terms import Program
from services.attribution import PEOPLE
from services.runtime.codec import Codec
from services.runtime.http.command_log import CommandLog
from services.runtime.http.problems import Problem
from services.runtime.reader import Rebuilding
from services.runtime.redis_client import connect
from services.runtime.redis_reader import RedisReader
from services.runtime.settings import Settings

WAIT_SECONDS = 60.0
PAUSE_SECONDS = 0.05


class ProgramsNotPublished(Exception):
    """A shipped program was refused, or not decided on in time. The message names it."""


async def publish_shipped(settings: Settings) -> None:
    """Ask for every shipped program as first version. Safe to run again and to run twice at once.

    Returns when the commands are on the log; a worker need not run yet, the first one to come decides them.
    Errors: Problem 503 or KafkaError when Kafka does not take them.
    """
    log = CommandLog(settings)
    await log.start()
    try:
        for program in shipped():
            await _write(log, _command(program, micros(settings.now())), program.program_id)
    finally:
        await log.stop()


async def _write(log: CommandLog, command: Event, key: str) -> None:
    """With more patience than a caller of the API has: topics that were just made find their leaders in their time."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return await log.write(command, key)
        except Problem:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(PAUSE_SECONDS)


async def until_published(settings: Settings, timeout_seconds: float = WAIT_SECONDS) -> None:
    """Wait until attribution has decided on every shipped program. Errors: ProgramsNotPublished."""
    redis = connect(settings.redis_url())
    reader = RedisReader(settings.partitions, redis, Codec.of(settings))
    try:
        async with asyncio.timeout(timeout_seconds):
            for program in shipped():
                answer = await _answer(reader, _command_id(program))
                if answer.status >= 400:
                    raise ProgramsNotPublished(f"{program.program_id} was refused: {answer.body}")
    except TimeoutError:
        raise ProgramsNotPublished("attribution did not decide on the shipped programs in time") from None
    finally:
        await redis.aclose()


async def _answer(reader: RedisReader, command_id: str) -> Answered:
    while True:
        try:
            if answers := await reader.answers((PEOPLE,), [command_id]):
                return answers[command_id]
        except Rebuilding:
            pass  # the worker has not opened its cells yet
        await asyncio.sleep(PAUSE_SECONDS)


def _digest(program: Program) -> str:
    return hashlib.sha256(program.model_dump_json().encode()).hexdigest()


def _command_id(program: Program) -> str:
    """One command per document: asked for again it is the same one, decided once."""
    return derived_id("setup", program.program_id, _digest(program))


def _command(program: Program, at: int) -> Event:
    asked = PublishProgram(
        command_id=_command_id(program),
        body_hash=_digest(program),
        caller="setup",
        partner_id=program.program_id,
        document=program.as_document(),
        only_first=True,
    )
    return Event(asked.command_id, "/attribution", at, asked)
