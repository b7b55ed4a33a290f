"""`refstream programs`: program documents, looked at, checked, compared and published."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer
from pydantic import ValidationError

from schemas.programs import differences as program_diff
from schemas.programs.terms import Program
from services.cli.program_file import DocumentRefused, ProgramFile, read_program
from services.cli.state import read_state, running_settings
from services.cli.tables import console
from services.cli.token import Role, signed

app = typer.Typer(
    no_args_is_help=True,
    help="Programs are documents: JSON that says who is rewarded for what. A new version is published; referrals keep "
    "the version that they were made under, unless the document says otherwise (`pricing`).\n\n"
    "`show ID > FILE`, edit, `validate FILE`, `diff FILE`, `publish FILE`.",
)

MOST_PAGES, PAGE = 50, 100
DECISION_SECONDS, PAUSE_SECONDS = 30, 0.5

Url = Annotated[
    str | None, typer.Option(envvar="REFSTREAM_URL", help="Address of the API; else that of the local stack.")
]
Token = Annotated[str | None, typer.Option(envvar="REFSTREAM_TOKEN", help="An admin's token; else one is signed here.")]


class ProgramsRefused(Exception):
    """There is no such program or version, or nobody to ask. The message says so for the terminal."""


# --- list -----------------------------------------------------------------------------------------------------------


@app.command("list")
def list_programs(
    url: Url = None,
    token: Token = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: a list of objects.")] = False,
) -> None:
    """List the published programs, by id: latest version, whether it is enabled, currency, since when, its terms."""
    with _asking(url, token) as api:
        rows = [_row(document) for document in api.programs()]
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif rows:
        _print_table(rows)
    else:
        print("no programs are published")


def _row(document: dict[str, Any]) -> dict[str, Any]:
    """What a list shows, for machines. `effective_at`: as the document says, null where it says nothing."""
    named = ("program_id", "version", "enabled", "currency", "effective_at")
    return {name: document.get(name) for name in named} | {"terms": [term["kind"] for term in document["terms"]]}


def _since(row: dict[str, Any]) -> str:
    if row["version"] == 1:
        return "the beginning"
    return str(row["effective_at"] or "its publication")


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    table = Table("id", "version", "enabled", "currency", "effective from", "terms", box=SIMPLE, pad_edge=False)
    for row in rows:
        enabled, terms = "yes" if row["enabled"] else "no", ", ".join(row["terms"])
        cells = (row["program_id"], str(row["version"]), enabled, row["currency"], _since(row), terms)
        table.add_row(*(Text(cell, overflow="fold") for cell in cells))
    console().print(table)


# --- show -----------------------------------------------------------------------------------------------------------


@app.command("show")
def show_program(
    program_id: Annotated[str, typer.Argument(metavar="ID", help="Of the program, as `list` tells.")],
    version: Annotated[int | None, typer.Option(min=1, help="Which version; else the latest.")] = None,
    url: Url = None,
    token: Token = None,
) -> None:
    """Print a published document as JSON: to look at, or to edit in a file and publish again."""
    with _asking(url, token) as api:
        print(json.dumps(api.program(program_id, version), indent=2, ensure_ascii=False))


# --- validate -------------------------------------------------------------------------------------------------------


@app.command("validate")
def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Program documents.")],
) -> None:
    """Check documents without a stack. Each fault is a line: FILE:LINE: field: what is wrong, and what to write.

    Exits with 1 where anything is wrong. Only a publication can tell whether `effective_at` has passed.
    """
    wrong = 0
    for file in files:
        try:
            program = read_program(file).program
        except DocumentRefused as refused:
            wrong += 1
            print(refused, file=sys.stderr)
        else:
            kinds = ", ".join(term.kind for term in program.terms) or "no terms: it rewards nothing"
            print(f"{file}: a valid program, {program.program_id} ({kinds})")
    if wrong:
        print(f"{wrong} of {len(files)} documents are wrong", file=sys.stderr)
        raise typer.Exit(1)


# --- diff -----------------------------------------------------------------------------------------------------------


@app.command("diff")
def diff(
    new: Annotated[str, typer.Argument(metavar="FILE|ID", help="What it becomes: a file, or a published program.")],
    old: Annotated[
        str | None,
        typer.Argument(metavar="[FILE|ID]", help="What it was; else the published program of the same id."),
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="The old version; else a file's latest, or a program's one before.")
    ] = None,
    to: Annotated[int | None, typer.Option(min=1, help="The new version, where FILE|ID is an id; else latest.")] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 where anything differs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: a list of {field, old, new}.")] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Show field by field, old → new, what a file would change, or what a version has changed.

    `diff FILE`: from the published program to the file.

    `diff ID`: from the version before the latest to the latest; `diff ID --version 1 --to 3`: from version 1 to 3.

    `diff FILE OTHER`: from the other file, or program, to the file. Two files need no stack.

    `version` is not compared, and a field that is left to its default counts as written out.
    """
    if to is not None and _is_file(new):
        raise typer.BadParameter("a file has no versions", param_hint="--to")
    if version is not None and old is not None and _is_file(old):
        raise typer.BadParameter("a file has no versions", param_hint="--version")
    with _asking(url, token) as api:
        after, after_name = _found(api, new, to)
        if old is None and version is None and not _is_file(new):
            if after.version == 1:
                raise ProgramsRefused(f"{new} has one version: there is nothing to compare it with")
            version = after.version - 1
        before, before_name = _found(api, old or after.program_id, version)
    found = program_diff.differences(before, after)
    if as_json:
        told = [{"field": each.field, "old": each.old, "new": each.new} for each in found]
        print(json.dumps(told, indent=2, ensure_ascii=False))
    elif found:
        print("\n".join([f"{before_name} → {after_name}", *program_diff.told(found)]))
    else:
        print(f"{before_name} and {after_name} say the same")
    if found and exit_code:
        raise typer.Exit(1)


def _is_file(named: str) -> bool:
    """Whether an argument names a file: no id has a slash, and a file of another name than *.json must be there."""
    return "/" in named or named.endswith(".json") or Path(named).is_file()


def _found(api: "Api", named: str, version: int | None) -> tuple[Program, str]:
    """The document of a file or a published version, and what to call it. Errors: DocumentRefused, ProgramsRefused."""
    if _is_file(named):
        return read_program(Path(named)).program, named
    program = _program(api.program(named, version))
    return program, f"{named} version {program.version}"


def _program(document: dict[str, Any]) -> Program:
    try:
        return Program.model_validate(document)
    except ValidationError:
        raise ProgramsRefused(
            f"{document.get('program_id')} was published by a refstream that knows more than this one: update it"
        ) from None


# --- publish --------------------------------------------------------------------------------------------------------


@app.command("publish")
def publish(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The program document.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Publish without asking.")] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Publish a document as the next version of its program; a new id begins with version 1.

    The file is checked and compared with the published version first; what changes is shown, and asked about. A
    document that says what is published already is left alone. Nothing is published where anything is wrong.
    """
    with _asking(url, token) as api:
        asked = read_program(file)
        program_id = asked.program.program_id
        known = api.find(program_id)
        before = _program(known) if known else None
        found = program_diff.differences(before, asked.program)
        if before and not found:
            print(f"{program_id} version {before.version} says the same: nothing to publish")
            return
        print(f"{program_id} version {before.version} → {file}" if before else f"{program_id} is a new program")
        print("\n".join(program_diff.told(found)))
        if not yes and not _agreed(f"Publish version {before.version + 1 if before else 1}?"):
            raise ProgramsRefused("nothing published (--yes publishes without asking)")
        made = _program(api.publish(asked))
    print(f"published {program_id} version {made.version}: {_in_force(made)}")
    if before and made.version > before.version + 1:
        print(f"somebody published meanwhile: `refstream programs diff {program_id}` shows what this one changed")


def _agreed(question: str) -> bool:
    try:
        return typer.confirm(question)
    except typer.Abort:  # no terminal to ask
        print()
        return False


def _in_force(made: Program) -> str:
    """From when on a version holds, and for whom."""
    if made.version == 1:
        return "in force from the beginning"
    document = made.as_document()
    since = f"from {document['effective_at']} on" if "effective_at" in document else "from now on"
    if made.pricing == "at_event":
        return f"it prices what happens {since}, also of earlier referrals"
    return f"it prices referrals made {since}; earlier ones keep their version"


# --- the API --------------------------------------------------------------------------------------------------------


class Api:
    """Attribution's programs over HTTP. Every method raises ProgramsRefused where an answer is no success."""

    def __init__(self, http: Callable[[], httpx.Client]) -> None:
        """`http`: gives the client, and is asked only when there is something to ask: files alone need no stack."""
        self._open = http

    @cached_property
    def _http(self) -> httpx.Client:
        return self._open()

    def close(self) -> None:
        if "_http" in vars(self):
            self._http.close()

    def programs(self) -> list[dict[str, Any]]:
        """The latest documents of all programs, by id."""
        found: list[dict[str, Any]] = []
        query = {"limit": str(PAGE)}
        for _ in range(MOST_PAGES):
            page = self._done("GET", "/attribution/programs", params=query).json()
            found += page["items"]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
        return sorted(found, key=lambda document: str(document["program_id"]))

    def find(self, program_id: str, version: int | None = None) -> dict[str, Any] | None:
        """A version's document, the latest without a number; None where there is none."""
        query = {} if version is None else {"version": str(version)}
        answer = self._send("GET", _path(program_id), params=query)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        document: dict[str, Any] = _checked(answer).json()
        return document

    def program(self, program_id: str, version: int | None = None) -> dict[str, Any]:
        """As `find`. Errors: ProgramsRefused also where there is none; it tells what there is instead."""
        if document := self.find(program_id, version):
            return document
        if version is not None and (latest := self.find(program_id)):
            raise ProgramsRefused(f"{program_id} has no version {version}; the latest is {latest['version']}")
        known = [str(document["program_id"]) for document in self.programs()]
        close = get_close_matches(program_id, known, n=1)
        there = f"did you mean {close[0]}?" if close else f"there are {', '.join(known) or 'none'}"
        raise ProgramsRefused(f"no program {program_id} is published; {there}")

    def publish(self, asked: ProgramFile) -> dict[str, Any]:
        """The published document, with its version. Errors: DocumentRefused for a 422, by the lines of the file."""
        answer = self._send("PUT", _path(asked.program.program_id), json=asked.document)
        deadline = time.monotonic() + DECISION_SECONDS
        while answer.status_code == httpx.codes.ACCEPTED:
            if time.monotonic() > deadline:
                raise ProgramsRefused(
                    "attribution has not decided yet, and will: look with "
                    f"`refstream programs show {asked.program.program_id}`"
                )
            time.sleep(PAUSE_SECONDS)
            answer = self._send("GET", answer.headers["location"])
        if answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY and (errors := _problem(answer).get("errors")):
            raise asked.refused(errors)
        document: dict[str, Any] = _checked(answer).json()
        return document

    def _done(self, method: str, path: str, **other: Any) -> httpx.Response:
        return _checked(self._send(method, path, **other))

    def _send(self, method: str, path: str, **other: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **other)
        except httpx.HTTPError as error:
            raise ProgramsRefused(f"{self._http.base_url} does not answer: {type(error).__name__}") from None


def _path(program_id: str) -> str:
    return f"/attribution/programs/{quote(program_id, safe='')}"


def _problem(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.is_success:
        return answer
    problem = _problem(answer)
    why = f"{answer.status_code} {problem.get('code', '')} {problem.get('detail', '')}".strip()
    raise ProgramsRefused(f"{answer.request.method} {answer.request.url.path} was answered {why}")


def connect(url: str | None, token: str | None) -> httpx.Client:
    """A client of the API, with an admin's token. Errors: ProgramsRefused without an address; SettingsRefused."""
    settings = running_settings()
    state = read_state(settings.data_path)
    address = url or (state.url if state else None) or settings.public_url
    if not address:
        raise ProgramsRefused("nobody to ask: start the local stack (`refstream up`), or give --url")
    bearer = token or signed(settings, Role.admin, "admin")
    return httpx.Client(base_url=address, headers={"Authorization": f"Bearer {bearer}"}, timeout=30)


@contextmanager
def _asking(url: str | None, token: str | None) -> Iterator[Api]:
    """The API, for as long as a command runs; a refusal is a message and exit code 1."""
    api = Api(lambda: connect(url, token))
    try:
        yield api
    except (ProgramsRefused, DocumentRefused) as refused:
        print(refused if isinstance(refused, DocumentRefused) else f"refstream: {refused}", file=sys.stderr)
        raise typer.Exit(1) from refused
    finally:
        api.close()
