"""A program document in a file: read, checked without a stack, and every fault with its line, its field and a cure."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from schemas.moments import WIRE
from schemas.programs.terms import Program, place_of

Place = tuple[str | int, ...]
"""Where something stands in a document: names of fields and positions in lists."""

MOST_BYTES = 1 << 20
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')
_PATTERNS = {
    "currency": 'an ISO 4217 code in capitals, like "USD"',
    "program_id": "1 to 128 of letters, digits and ._:@-",
}
_SYNTAX = {
    "Expecting property name": "write the name of a field in double quotes; no comma after the last one",
    "Illegal trailing comma": "no comma after the last one",
    "Expecting ',' delimiter": "put a comma between this and what stands before it",
    "Expecting ':' delimiter": "put a colon between a field's name and its value",
    "Expecting value": "write a value: text in double quotes, true, false or a number; no comma after the last one",
    "Extra data": "the document ends before this: one object per file, no more",
    "Unterminated string": "end the text with a double quote",
    "Invalid control character": "end the text with a double quote, on the line where it begins",
    "Invalid \\escape": "write a backslash as two",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing to put right. `field`: as it stands in the document, dotted; empty where no field is at fault."""

    line: int
    field: str
    says: str
    column: int | None = None

    def told(self, file: Path) -> str:
        """`FILE:LINE[:COLUMN]: field: what is wrong and what to write instead`."""
        at = f"{file}:{self.line}" + (f":{self.column}" if self.column else "")
        return f"{at}: {self.field}: {self.says}" if self.field else f"{at}: {self.says}"


class DocumentRefused(Exception):
    """The file holds no valid program document. `faults`: all of them, in the order of their lines."""

    def __init__(self, file: Path, faults: list[Fault]) -> None:
        super().__init__("\n".join(fault.told(file) for fault in faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class ProgramFile:
    """A valid document and where its fields stand. `document`: as it was written, to be sent as it is."""

    file: Path
    program: Program
    document: dict[str, Any]
    lines: dict[Place, int]

    def refused(self, errors: list[dict[str, str]]) -> DocumentRefused:
        """What an API answered 422, as faults of this file. `errors`: its `{field, message}`."""
        faults = []
        for error in errors:
            place = tuple(int(step) if step.isdecimal() else step for step in error["field"].split("."))
            faults.append(Fault(_line(place, self.lines), _dotted(place), error["message"]))
        return DocumentRefused(self.file, faults)


def read_program(file: Path) -> ProgramFile:
    """The document in a file, checked as a publication would check it, but for `effective_at` and the clock.

    `version` is assigned by the publication: one in the file is neither needed nor looked at.
    Errors: DocumentRefused with every fault; a file that cannot be read is one, at line 1.
    """
    text = _text(file)
    document = _json(file, text)
    lines, twice = _places(text)
    faults = [Fault(line, _dotted(place), "stands twice: take one of them out") for place, line in twice]
    program = None
    try:
        program = Program.model_validate({**document, "version": 1}, context=WIRE)
    except ValidationError as error:
        faults += [_fault(each, document, lines) for each in _causes(error.errors())]
    if program is None or faults:
        raise DocumentRefused(file, sorted(faults, key=lambda fault: fault.line))
    return ProgramFile(file, program, document, lines)


def _text(file: Path) -> str:
    try:
        with file.open("rb") as handle:
            raw = handle.read(MOST_BYTES + 1)
    except OSError as error:
        raise DocumentRefused(file, [Fault(1, "", f"cannot be read: {error.strerror}")]) from None
    if len(raw) > MOST_BYTES:
        raise DocumentRefused(file, [Fault(1, "", f"is larger than {MOST_BYTES} bytes: no program document")])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DocumentRefused(file, [Fault(line, "", "is no UTF-8 text: save the file as UTF-8")]) from None


def _json(file: Path, text: str) -> dict[str, Any]:
    def no_number(constant: str) -> NoReturn:
        raise ValueError(constant)

    try:
        document = json.loads(text, parse_constant=no_number)
    except json.JSONDecodeError as error:
        cure = next((cure for begins, cure in _SYNTAX.items() if error.msg.startswith(begins)), error.msg)
        raise DocumentRefused(file, [Fault(error.lineno, "", f"is no JSON here: {cure}", error.colno)]) from None
    except (ValueError, RecursionError) as error:
        says = f"holds what is no JSON: {str(error)[:60]}" if isinstance(error, ValueError) else "is nested too deep"
        raise DocumentRefused(file, [Fault(1, "", says)]) from None
    if not isinstance(document, dict):
        raise DocumentRefused(file, [Fault(1, "", "write one JSON object: { … }")])
    return document


# --- where things stand ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Open:
    """An object or a list that has begun and not ended. `step`: the field or position that is being read in it."""

    is_object: bool
    step: str | int
    awaits_name: bool


def _places(text: str) -> tuple[dict[Place, int], list[tuple[Place, int]]]:
    """The line of every field and item of a valid JSON text, and the fields that stand a second time."""
    lines: dict[Place, int] = {}
    twice: list[tuple[Place, int]] = []
    inside: list[_Open] = []
    line, seen = 1, 0
    for match in _TOKEN.finditer(text):
        line, seen = line + text.count("\n", seen, match.start()), match.start()
        found = match[0]
        if inside and inside[-1].awaits_name and found.startswith('"'):
            inside[-1].step, inside[-1].awaits_name = json.loads(found), False
            place = tuple(each.step for each in inside)
            if place in lines:
                twice.append((place, line))
            lines[place] = line
        elif found in "]}":
            inside.pop()
        elif found == ",":
            _go_on(inside[-1])
        elif found != ":":
            lines.setdefault(tuple(each.step for each in inside), line)
            if found in "[{":
                inside.append(_Open(found == "{", 0, awaits_name=found == "{"))
    return lines, twice


def _go_on(inside: _Open) -> None:
    inside.awaits_name = inside.is_object
    if isinstance(inside.step, int):
        inside.step += 1


def _child(value: Any, step: str | int) -> Any:
    """A field of an object or an item of a list; None where there is no such thing."""
    if isinstance(value, dict):
        return value.get(step)
    return value[step] if isinstance(value, list) and isinstance(step, int) and step < len(value) else None


def _line(place: Place, lines: dict[Place, int]) -> int:
    """The line of a field; of what it is missing in, where it is not there."""
    return next((lines[place[:end]] for end in range(len(place), -1, -1) if place[:end] in lines), 1)


def _dotted(place: Place) -> str:
    return ".".join(map(str, place))


# --- what is wrong, and the cure ------------------------------------------------------------------------------------


def _causes(errors: list[Any]) -> list[Any]:
    """The errors without those that only follow: a list counts as too short once its items are wrong."""
    return [
        error
        for error in errors
        if error["type"] != "too_short"
        or not any(other is not error and other["loc"][: len(error["loc"])] == error["loc"] for other in errors)
    ]


def _fault(error: Any, document: dict[str, Any], lines: dict[Place, int]) -> Fault:
    place = place_of(error["loc"])
    return Fault(_line(place, lines), _dotted(place), _cure(error, place, document))


def _cure(error: Any, place: Place, document: dict[str, Any]) -> str:
    """What is wrong with a field, and what to write instead. `error`: one of pydantic's."""
    limits, name = error.get("ctx", {}), str(place[-1]) if place else ""
    match error["type"]:
        case "missing":
            about = _fields(place[:-1], document).get(name, {}).get("description")
            return f"is missing: add it ({about})" if about else "is missing: add it"
        case "extra_forbidden":
            return f"no such field here: {_meant(name, sorted(_fields(place[:-1], document)))}"
        case "union_tag_not_found":
            return f'say which "kind" of terms this is: {", ".join(sorted(_kinds()))}'
        case "union_tag_invalid":
            return f"{limits['tag']!r} is no kind of terms: {_meant(limits['tag'], sorted(_kinds()))}"
        case "literal_error":
            return _instead(error["input"], f"write {limits['expected']}")
        case "string_pattern_mismatch":
            return _instead(error["input"], f"write {_PATTERNS.get(name, 'text like ' + limits['pattern'])}")
        case "bool_type" | "bool_parsing":
            return _instead(error["input"], "write true or false")
        case "int_type" | "int_parsing" | "int_from_float":
            return _instead(error["input"], "write a whole number")
        case "greater_than_equal" | "less_than_equal" | "greater_than" | "less_than":
            return _instead(error["input"], _limit(error["type"], limits))
        case "too_short":
            return "is empty: write at least one"
        case "model_type" | "dict_type" | "model_attributes_type":
            return _instead(error["input"], "write an object: { … }")
        case "tuple_type" | "list_type":
            return _instead(error["input"], "write a list: [ … ]")
        case "string_type":
            return _instead(error["input"], "write text in double quotes")
        case _:
            return str(error["msg"]).removeprefix("Value error, ")


def _instead(given: Any, cure: str) -> str:
    return f"{json.dumps(given, ensure_ascii=False, default=str)[:60]} will not do: {cure}"


def _limit(kind: str, limits: dict[str, Any]) -> str:
    match kind:
        case "greater_than_equal":
            return f"write {limits['ge']} or more"
        case "greater_than":
            return f"write more than {limits['gt']}"
        case "less_than_equal":
            return f"write {limits['le']} or less"
        case _:
            return f"write less than {limits['lt']}"


def _meant(written: str, known: list[str]) -> str:
    close = get_close_matches(written, known, n=1)
    return f"did you mean {close[0]}?" if close else f"write one of {', '.join(known)}"


@cache
def _schema() -> dict[str, Any]:
    return Program.model_json_schema()


def _kinds() -> dict[str, str]:
    kinds: dict[str, str] = _schema()["properties"]["terms"]["items"]["discriminator"]["mapping"]
    return kinds


def _fields(place: Place, document: dict[str, Any]) -> dict[str, Any]:
    """The fields that an object at this place may have, each with its JSON Schema; none where that is not known."""
    here: dict[str, Any] = _schema()
    value: Any = document
    for step in place:
        value = _child(value, step)
        if isinstance(step, int):
            here = here.get("items", {})
        else:
            here = here.get("properties", {}).get(step) or here.get("additionalProperties") or {}
        here = _of_value(here, value)
    fields: dict[str, Any] = here.get("properties", {})
    return fields


def _of_value(schema: dict[str, Any], value: Any) -> dict[str, Any]:
    """The schema that speaks of a value, behind references and alternatives."""
    for option in _alternatives(schema):
        if option.get("type") != "null":
            schema = option
            break
    if "discriminator" in schema:
        kind = value.get("kind") if isinstance(value, dict) else None
        schema = {"$ref": schema["discriminator"]["mapping"].get(kind, "")}
    if "$ref" in schema:
        found: dict[str, Any] = _schema()["$defs"].get(schema["$ref"].rpartition("/")[2], {})
        return found
    return schema


def _alternatives(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from schema.get("anyOf", ())
    yield from schema.get("allOf", ())
