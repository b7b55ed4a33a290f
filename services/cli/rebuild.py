"""`refstream rebuild`: throw away what Redis holds, and fold it again from the log."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.service import Service
from services.cli.state import running_settings
from services.runtime.settings import Settings

if TYPE_CHECKING:
    from services.cli.cells import Bench
    from services.runtime.store import Outgoing

LOOK_SECONDS = 0.2
MEMBERS = 5
"""Where Kafka's description of a group lists its members."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the cells are: commits folded again, of all that the journals hold; cells that can be read."""

    done: int
    of: int
    ready: int


def rebuild(
    service: Annotated[list[Service] | None, typer.Option(help="Only this one; may be given several times.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Rebuild what Redis holds from the log. Until a cell is whole again the API answers 503 for it.

    Running workers do it, or this command where none runs. Safe to interrupt: run it again, and it goes on where it
    was. Nothing is said twice, and nothing that was said is changed.
    """
    settings = running_settings()
    services = service or list(Service)
    if not yes:
        named = ", ".join(each.value for each in services)
        typer.confirm(f"Empty and rebuild what Redis holds for {named}? The API answers 503 meanwhile.", abort=True)
    asyncio.run(_rebuild(settings, services))


async def _rebuild(settings: Settings, services: list[Service]) -> None:
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    from services.cli.cells import names
    from services.runtime.redis_client import connect

    cells = [(stage, partition) for _, stage, partition in names(settings, services)]
    redis = connect(settings.redis_url())
    try:
        ends = await _ends(settings, cells)
        began = time.monotonic()
        for stage, partition in cells:
            await _close(redis, stage, partition)
        idle = [each for each in services if not await _has_workers(settings, each)]
        own = asyncio.create_task(asyncio.to_thread(_fold, settings, idle)) if idle else None
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Bar(*columns, transient=True) as bar:
            task = bar.add_task("", total=1)
            while True:
                at = await _progress(redis, cells, ends)
                told = f"{at.ready} of {len(cells)} cells, {at.done} of {at.of} commits"
                bar.update(task, description=told, total=max(1, at.of), completed=at.done)
                if own is not None and own.done():
                    own.result()
                if at.ready == len(cells):
                    break
                await asyncio.sleep(LOOK_SECONDS)
        records = await own if own is not None else None
        seconds = time.monotonic() - began
        told = "" if records is None else f" ({records} records, {records / seconds:.0f}/s)"
        print(f"rebuilt {len(cells)} cells, {at.of} commits in {seconds:.1f} s{told}")
    finally:
        await redis.aclose()


async def _close(redis: Any, stage: str, partition: int) -> None:
    """Take from a cell what it knows of itself: nobody reads it from here on, and who opens it next empties it.

    Not where an interrupted rebuild has begun on it.
    """
    from services.runtime.redis_store import NOT_READY
    from services.runtime.store import tag

    meta = f"{tag(stage, partition)}:meta"
    if await redis.hget(meta, "ready") != NOT_READY:
        await redis.unlink(meta)


async def _ends(settings: Settings, cells: list[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """How many commits each cell's journal holds."""
    from schemas.topics import JOURNALS
    from services.runtime import recovery
    from services.runtime.kafka_log import KafkaLogReader

    ends = {}
    for partition in sorted({partition for _, partition in cells}):
        stages = [stage for stage, number in cells if number == partition]
        async with KafkaLogReader(settings, [JOURNALS[stage].name for stage in stages], partition) as reader:
            for stage in stages:
                ends[stage, partition] = (await recovery.last_entry(reader, stage)).number
    return ends


async def _progress(redis: Any, cells: list[tuple[str, int]], ends: dict[tuple[str, int], int]) -> Progress:
    from services.runtime.redis_store import NOT_READY
    from services.runtime.store import tag

    async with redis.pipeline(transaction=False) as pipe:
        for cell in cells:
            pipe.hmget(f"{tag(*cell)}:meta", ["commits", "ready"])
        found = await pipe.execute()
    done = sum(min(int(commits or 0), ends[cell]) for cell, (commits, _) in zip(cells, found, strict=True))
    return Progress(done, sum(ends.values()), sum(ready not in (None, NOT_READY) for _, ready in found))


async def _has_workers(settings: Settings, service: Service) -> bool:
    from aiokafka.admin import AIOKafkaAdminClient

    admin = AIOKafkaAdminClient(**settings.kafka_client_options())
    await admin.start()
    try:
        (answer,) = await admin.describe_consumer_groups([service.value])
        return any(group[MEMBERS] for group in answer.groups)
    finally:
        await admin.close()


def _fold(settings: Settings, services: list[Service]) -> int:
    from services.cli.cells import on_every_cell

    return sum(records for _, records in on_every_cell(settings, services, folded))


async def folded(bench: "Bench") -> int:
    """Fold what the cell lacks. Answers how many records that were."""
    from services.runtime import recovery
    from services.runtime.redis_store import RedisCellStore
    from services.runtime.sender import Sender

    records = 0

    def count(number: int) -> None:
        nonlocal records
        records += number

    cell = bench.cell(RedisCellStore(bench.redis, bench.stage.name, bench.partition))
    sender = Sender(bench.settings)
    await sender.start()

    async def tell(outgoing: "Sequence[Outgoing]") -> None:
        await sender.send(bench.stage.name, outgoing)

    left = await recovery.opened(cell, bench.reader, tell, count)
    await tell(left)
    await cell.trim(left)
    await sender.stop()
    return records
