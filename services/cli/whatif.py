"""`refstream whatif`: what partners would have earned, had a program document been in force."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.moments import DATE, format_instant, parse_instant
from schemas.money import decimal_amount
from services.cli.program_file import DocumentRefused, read_program
from services.cli.state import running_settings
from services.cli.tables import console

if TYPE_CHECKING:
    from schemas.programs.terms import Program
    from services.commission.whatif import Had, WhatIf
    from services.runtime.settings import Settings

TOLD_EVERY = 1_000


class WhatIfRefused(Exception):
    """There is nothing to compare with, or nothing to read. The message says so for the terminal."""


def _instant(text: str) -> int:
    """A day, which begins at 00:00 UTC, or an instant of RFC 3339. Errors: BadParameter."""
    try:
        return parse_instant(f"{text}T00:00:00Z" if DATE.fullmatch(text) else text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no day like 2026-02-28 and no time like 2026-02-28T12:00:00Z") from error


def whatif(
    program: Annotated[
        Path, typer.Option(metavar="FILE", help="A program document, as `refstream programs show` prints one.")
    ],
    since: Annotated[
        int | None,
        typer.Option("--from", parser=_instant, metavar="TIME", help="In force from then on; else from the beginning."),
    ] = None,
    until: Annotated[
        int | None,
        typer.Option("--to", parser=_instant, metavar="TIME", help="In force until then, exclusive; else to the end."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: every partner, in minor units.")] = False,
) -> None:
    """Tell what each partner would have, had this document been in force, and the difference. Changes nothing.

    Every payment is decided again, as it was and by the document: in force all the time, or from --from to --to. Then
    it prices the referrals made in that time or, where the program is priced at the event, the payments made in it.

    Counted are commissions and credits after refunds, and what partners were charged for clients. Who brought whom,
    withdrawals, top-ups, claims and verified months stay as they were.

    TIME is a day, which begins at 00:00 UTC, or like 2026-02-28T12:00:00Z.
    """
    settings = running_settings()
    try:
        if since is not None and until is not None and since >= until:
            raise WhatIfRefused(f"--to {format_instant(until)} is not after --from {format_instant(since)}")
        document = read_program(program).program
        found = asyncio.run(_compared(settings, document, since, until))
    except (DocumentRefused, WhatIfRefused) as refused:
        print(f"refstream: {refused}" if isinstance(refused, WhatIfRefused) else refused, file=sys.stderr)
        raise typer.Exit(1) from refused
    rows = list(_rows(*found.had()))
    if as_json:
        told = {"program_id": document.program_id, "payments": found.payments, "partners": rows}
        print(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        _print(document.program_id, found.payments, rows)


async def _compared(settings: "Settings", document: "Program", since: int | None, until: int | None) -> "WhatIf":
    """Reads all customers' states. Errors: WhatIfRefused."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from services.commission.sales import SALES
    from services.commission.whatif import Supposed, Unpublished, WhatIf
    from services.runtime.codec import Codec
    from services.runtime.programs import ProgramsFeed
    from services.runtime.reader import Rebuilding
    from services.runtime.redis_client import connect
    from services.runtime.redis_reader import RedisReader

    redis, feed = connect(settings.redis_url()), ProgramsFeed(settings)
    await feed.start()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    try:
        compared = WhatIf(feed.programs, Supposed(feed.programs, document, since, until))
        with Progress(*columns, transient=True) as progress:
            task, customers = progress.add_task("reading customers"), 0
            async for customer_id, customer in RedisReader(settings.partitions, redis, Codec.of(settings)).all_states(
                SALES
            ):
                compared.take(customer_id, customer)
                customers += 1
                if customers % TOLD_EVERY == 0:
                    progress.update(task, description=f"{customers} customers, {compared.payments} payments")
        return compared
    except Unpublished as error:
        raise WhatIfRefused(f"{error}: no version of this program is published, so it has no referrals") from error
    except Rebuilding as error:
        raise WhatIfRefused(
            "commission's cells are being rebuilt: try again when `refstream status` is well"
        ) from error
    finally:
        await feed.stop()
        await redis.aclose()


def _rows(had: "Had", would: "Had") -> Iterator[dict[str, Any]]:
    """A row for each partner, kind and currency; credits have none."""
    for line in sorted({*had, *would}):
        named = {"partner_id": line.partner_id, "kind": line.kind, "currency": line.currency or None}
        yield named | {"had": had[line], "would_have": would[line], "difference": would[line] - had[line]}


def _print(program_id: str, payments: int, rows: list[dict[str, Any]]) -> None:
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    changed = [row for row in rows if row["difference"]]
    print(f"{program_id}: {payments} payments of {len({row['partner_id'] for row in rows})} partners decided again")
    if not changed:
        print("nobody would have more or less")
        return
    table = Table("partner", "of", "", "had", "would have", "difference", box=SIMPLE, pad_edge=False)
    for column in table.columns[3:]:
        column.justify = "right"
    for row in changed:
        table.add_row(Text(row["partner_id"], overflow="fold"), *_cells(row))
    table.add_section()
    for each in sorted({(row["kind"], row["currency"]) for row in rows}, key=str):
        own = [row for row in rows if (row["kind"], row["currency"]) == each]
        total = {name: sum(row[name] for row in own) for name in _COUNTED}
        table.add_row("all", *_cells(total | {"kind": each[0], "currency": each[1]}))
    console().print(table)


_COUNTED = ("had", "would_have", "difference")


def _cells(row: dict[str, Any]) -> Iterator[str]:
    yield row["kind"]
    yield row["currency"] or ""
    for name in _COUNTED:
        text = decimal_amount(row[name], row["currency"]) if row["currency"] else str(row[name])
        yield f"+{text}" if name == "difference" and row[name] > 0 else text
