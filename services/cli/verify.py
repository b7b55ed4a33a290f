"""`refstream verify`: is what Redis holds what the log gives?"""

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.service import Service
from services.cli.state import running_settings

if TYPE_CHECKING:
    from services.cli.cells import Bench
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
    began, records = time.monotonic(), 0
    found: list[Difference] = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    total = len(names(settings, services))
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task(f"folding {total} cells again", total=total)
        for number, (_, (folded, differences)) in enumerate(on_every_cell(settings, services, compared), 1):
            records += folded
            found += differences
            progress.update(task, description=f"{number} of {total} cells, {records} records folded again", advance=1)
    seconds = time.monotonic() - began
    print(f"{records} records of {total} cells folded again in {seconds:.1f} s: {len(found)} differences")
    for difference in found[:first]:
        _print(difference)
    if found:
        raise typer.Exit(1)


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
