"""`refstream dead-letters`: the records that nobody could use, looked at, mended and played again."""

import asyncio
import base64
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from schemas.events import UnknownType, Unreadable, parse_event
from schemas.topics import TOPIC_OF
from services.cli.state import running_settings
from services.cli.tables import console
from services.runtime.dead_letters import (
    Again,
    Letter,
    LetterRefused,
    again,
    chosen,
    find_letters,
    letters_at,
    publish_again,
    replayable,
)

app = typer.Typer(
    no_args_is_help=True,
    help="Records that could not be used: not readable, dated in the future, contradicting an earlier one. Nothing is "
    "lost: each stands here as it came, with the reason, the field at fault and where it stood.",
)

Result = TypeVar("Result")

Reason = Annotated[str | None, typer.Option(help="Only this reason, such as conflicting_repeat.")]
FromTopic = Annotated[str | None, typer.Option(help="Only records that came from this topic.")]


# --- list -----------------------------------------------------------------------------------------------------------


@app.command("list")
def list_letters(
    topic: FromTopic = None,
    reason: Reason = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to show, the newest.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: a list of objects.")] = False,
) -> None:
    """List the dead letters, newest last: why, which field, where from, what about. Shows nothing personal."""
    found = asyncio.run(find_letters(running_settings(), chosen(reason, topic)))
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
    from rich.table import Table
    from rich.text import Text

    table = Table("position", "since", "reason", "field", "came from", "about", box=SIMPLE, pad_edge=False)
    for letter in letters:
        row = letter.row()
        cells = (letter.position, row["dead_since"][:19], letter.reason, letter.field, letter.came_from, row["about"])
        table.add_row(*(Text(cell, overflow="fold") for cell in cells))  # Text: a record may hold [markup]
    console().print(table)


# --- show -----------------------------------------------------------------------------------------------------------


@app.command("show")
def show_letter(
    position: Annotated[str, typer.Argument(help="Where it stands, as `list` tells: PARTITION:OFFSET.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one object.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Only the record, byte for byte: to mend it in a file.")] = False,
) -> None:
    """Show one dead letter with the record as it came. The record may hold personal data."""
    (letter,) = _or_exit(lambda: asyncio.run(letters_at(running_settings(), [position])))
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
            found = asyncio.run(find_letters(settings, chosen(reason, topic)))
            letters = [letter for letter in found if replayable(letter)]
            if len(letters) < len(found):
                left_out = len(found) - len(letters)
                print(f"{left_out} came from topics that refstream alone writes, or were too large: not replayed")
        else:
            letters = asyncio.run(letters_at(settings, positions or ()))
        records = [again(letter) for letter in letters] if file is None else [mended(letters[0], file)]
        return asyncio.run(publish_again(settings, records))

    print(f"published {_or_exit(run)} records again")


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


def _or_exit(do: Callable[[], Result]) -> Result:
    """Do it; a refusal is a message and exit code 1."""
    try:
        return do()
    except LetterRefused as refused:
        print(f"refstream: {refused}", file=sys.stderr)
        raise typer.Exit(1) from refused
