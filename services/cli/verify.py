"""`refstream verify`: is what Redis holds what the log gives?"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.moments import micros
from services.cli.service import Service
from services.cli.state import running_settings

if TYPE_CHECKING:
    from services.cli.cells import Bench
    from services.runtime.settings import Settings
    from services.runtime.verify import Difference

SHOWN_CHARACTERS = 300


def verify(
    service: Annotated[list[Service] | None, typer.Option(help="Only this one; may be given several times.")] = None,
    first: Annotated[int, typer.Option(min=1, help="How many differences to show.")] = 20,
) -> None:
    """Fold the log again beside the live state and compare everything that Redis holds, byte by byte.

    Nothing has to stop: each piece is compared as of the commit that it was read at. Exits with 1, and shows the first
    differences, where there are any; `refstream rebuild` puts Redis right.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from services.cli.cells import names, on_every_cell

    settings = running_settings()
    services = service or list(Service)
    began, records = time.monotonic(), Counter[str]()
    found: list[Difference] = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    total = len(names(settings, services))
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task(f"folding {total} cells again", total=total)
        for number, (cell, (folded, differences)) in enumerate(on_every_cell(settings, services, compared), 1):
            records[_service_of(cell)] += folded
            found += differences
            told = f"{number} of {total} cells, {records.total()} records folded again"
            progress.update(task, description=told, advance=1)
    asyncio.run(_note(settings, services, records, found))
    seconds = time.monotonic() - began
    print(f"{records.total()} records of {total} cells folded again in {seconds:.1f} s: {len(found)} differences")
    for difference in found[:first]:
        _print(difference)
    if found:
        raise typer.Exit(1)


async def _note(
    settings: "Settings", services: Sequence[Service], records: Mapping[str, int], found: "Sequence[Difference]"
) -> None:
    """Leave what was found of each service for the desk's page Health."""
    from services.cli.cells import names
    from services.runtime.redis_client import connect
    from services.runtime.verified import Verified, note

    redis, at = connect(settings.redis_url()), micros(settings.now())
    try:
        for service in services:
            cells = len(names(settings, [service]))
            differences = sum(_service_of(each.cell) == service.value for each in found)
            run = Verified(at=at, cells=cells, records=records[service.value], differences=differences)
            await note(redis, service.value, run)
    finally:
        await redis.aclose()


def _service_of(cell: str) -> str:
    return cell.partition(".")[0]


async def compared(bench: "Bench") -> "tuple[int, list[Difference]]":
    """How many records were folded for a cell, and its differences."""
    from services.runtime.verify import Verifier

    verifier = Verifier(bench.redis, bench.reader, bench.cell, bench.codec)
    found = [difference async for difference in verifier.differences()]
    return verifier.records, found


def _print(difference: "Difference") -> None:
    from services.runtime.verify import apart

    print(f"{difference.cell} {difference.what} {difference.key}")
    for path, live, log in apart(difference.live, difference.log):
        print(f"  {path or 'value'}: Redis has {_short(live)}, the log gives {_short(log)}")


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, default=str)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
