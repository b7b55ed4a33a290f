"""Golden journeys: a rule told as lines of JSON, played in memory and over real Kafka.

A file of `tests/golden/<program>/` holds one object per line:
    {"rule": "programs.md, keycrm: …"}                       what it shows
    {"in": {"type": …, "time": …, "data": {…}}}              an event of the platform, or a command
    {"settle": true}                                         all before is folded before anything after
    {"out": {"type": …, "time"?: …, "data": {…}}}            an event that must come out, at least these fields
    {"none": {"type": …, "data": {…}}}                       no such event comes out
    {"dead": {"reason": …, "topic": …, "field"?: …}}          a dead letter with these headers
    {"balance": {"partner_id": …, "program_id": …, "currency": …, "as_of"?: …, "available": 900, …}}   minor units
    {"wallet": {"partner_id": …, "as_of"?: …, "credits": [{"program_id": …, "balance": 10}]}}
In strings, `~x` is an id of this journey, `$link(~x)` the code of the link that command ~x made; likewise `$promo(~x)`,
and the ids of `$deposit(~x)`, `$client_payment(~x)`, `$claim(~x)` and `$withdrawal(~x)`.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from schemas.events import Event, parse_event
from schemas.ids import derived_id
from services.attribution.codes import LINK_BYTES, PROMO_BYTES, derived_code

GOLDEN = Path(__file__).parent / "golden"
MADE_BY: dict[str, Callable[[str], str]] = {
    "link": lambda command_id: derived_code(command_id, LINK_BYTES),
    "promo": lambda command_id: derived_code(command_id, PROMO_BYTES).upper(),
    "deposit": lambda command_id: derived_id("dep", command_id),
    "client_payment": lambda command_id: derived_id("cp", command_id),
    "claim": lambda command_id: derived_id("claim", command_id),
    "withdrawal": lambda command_id: derived_id("wd", command_id),
}
"""What a command makes, by the command's id."""


@dataclass(frozen=True)
class Journey:
    """One file: its rule and its lines, with ids made its own."""

    name: str
    rule: str
    lines: tuple[dict[str, Any], ...]

    def phases(self) -> Iterator[list[Event]]:
        """The events to publish, phase by phase; each phase is folded before the next."""
        phase: list[Event] = []
        for line in self.lines:
            if "in" in line:
                phase.append(_event(self.name, line["in"]))
            elif "settle" in line:
                yield phase
                phase = []
        yield phase

    def expected(self, kind: str) -> list[dict[str, Any]]:
        return [line[kind] for line in self.lines if kind in line]


def journeys(tag: str = "") -> list[Journey]:
    """Every journey of `tests/golden`, by name; `tag` makes their ids others, to play them once more on one log."""
    found = []
    for path in sorted(GOLDEN.glob("*/*.jsonl")):
        name = f"{tag}{path.parent.name}-{path.stem}"
        lines = [json.loads(_own_ids(line, name)) for line in path.read_text().splitlines() if line.strip()]
        found.append(Journey(name, lines[0]["rule"], tuple(lines[1:])))
    return found


def _own_ids(line: str, name: str) -> str:
    line = re.sub(r"(?<![\w~])~(?=\w)", f"{name}.", line)
    return re.sub(r"\$(\w+)\(([^)]+)\)", lambda match: MADE_BY[match[1]](match[2]), line)


def _event(name: str, told: dict[str, Any]) -> Event:
    data = dict(told["data"])
    if told["type"].startswith("command."):
        data = {"body_hash": "-", "caller": "platform:platform", **data}
    if told["type"] == "command.create_link":
        data = {"public_url": "http://refstream.example", **data}
    identity = f"{name}:{told['type']}:{json.dumps(told, sort_keys=True)}"
    raw = {"specversion": "1.0", "id": identity[:200], "source": "/journey", **told, "data": data}
    return parse_event(orjson.dumps(raw))


def matches(wanted: Any, got: Any) -> bool:
    """Whether `got` has at least what is wanted."""
    if isinstance(wanted, dict):
        return isinstance(got, dict) and all(key in got and matches(value, got[key]) for key, value in wanted.items())
    return bool(wanted == got)


def missing(wanted: list[dict[str, Any]], events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The wanted events that did not come out; each event stands for one line."""
    left = list(events)
    lost = []
    for one in wanted:
        hit = next((event for event in left if matches(one, event)), None)
        if hit is None:
            lost.append(one)
        else:
            left.remove(hit)
    return lost
