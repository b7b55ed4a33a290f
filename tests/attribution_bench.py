"""Attribution in memory: its three stages, fed one event after the other, and a Reader over what they remember.

What a stage says on a topic that attribution itself reads comes back to it, as over Kafka; everything is in `said`.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from schemas.commands import Answered, Command
from schemas.events import CustomerProfile, Event, Payload, ProgramPublished, event_json, parse_event
from schemas.programs import Programs
from schemas.topics import TOPIC_OF
from services.attribution import stages
from services.runtime.programs import ProgramsFeed
from services.runtime.stage import Context, DeadLetter, Missing, Record, Rows, Stage
from tests.http_fakes import FakeReader, settings


@dataclass
class Bench:
    known: Programs = field(default_factory=Programs)
    reader: FakeReader = field(default_factory=FakeReader)
    said: list[Payload] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    peeked: int = 0

    def __post_init__(self) -> None:
        self.feed = ProgramsFeed(settings())
        self.feed.programs = self.known
        self.stages = {stage.name: stage for stage in stages(settings())}

    @property
    def programs(self) -> Programs:
        return self.feed.programs

    def forget(self, person_id: str, at: int) -> list[Payload]:
        """A record without a value on `profiles`, and all that follows from it."""
        nothing = Event("tombstone", "", at, CustomerProfile(customer_id=person_id))
        return self.fold(*self._fold_at("attribution.profiles", nothing, tombstone=True))

    def fold(self, *events: Event) -> list[Payload]:
        """Fold events and all that follows from them. Answers what was said on the way."""
        before = len(self.said)
        waiting = list(events)
        while waiting:
            event = parse_event(event_json(waiting.pop(0)))
            for stage in self.stages.values():
                if TOPIC_OF[type(event.data)] in stage.reads:
                    waiting += self._fold_at(stage.name, event)
        return self.said[before:]

    async def write(self, event: Event, key: str) -> None:
        """What an API writes to Kafka."""
        assert TOPIC_OF[type(event.data)].key(event.data) == key
        self.fold(event)

    def ask(self, command: Command, at: int) -> Answered:
        """The decision on a command."""
        self.fold(Event(command.command_id, "/attribution", at, command))
        return self.reader.decided[command.command_id]

    def state(self, stage: str, key: str) -> Any:
        return self.reader.by_key.get((stage, key))

    def _fold_at(self, name: str, event: Event, *, tombstone: bool = False) -> list[Event]:
        stage, key = self.stages[name], TOPIC_OF[type(event.data)].key(event.data)
        if getattr(event.data, "command_id", None) in self.reader.decided:
            return []
        stored = self.reader.rows_by_key.setdefault((name, key), {})
        rows: Rows[Any] = Rows({row_id: stored.get(row_id) for row_id in stage.row_ids(event)})
        record = Record(TOPIC_OF[type(event.data)].name, 0, 0, key.encode(), None if tombstone else event_json(event))
        peeked: dict[tuple[str, str], Any] = {}

        def peek(where: str, asked: str) -> Any:
            if (where, asked) not in peeked:
                raise Missing("peek", where, asked)
            return peeked[where, asked]

        while True:
            context: Context[Any] = Context(key, self.programs, rows, record, peek)
            try:
                change = stage.step(context, self.reader.by_key.get((name, key), stage.empty), event)
                break
            except Missing as missing:
                _, where, asked = missing.what
                peeked[where, asked] = self._shown(stage, where, asked)
                self.peeked += where not in stage.outside
        if change.state is not None:
            self.reader.by_key[name, key] = _stored(change.state, type(stage.empty))
        stored.update({row_id: _stored(row, stage.row) for row_id, row in change.rows.items()})
        self.dead_letters += change.dead_letters
        self.reader.found.update({(name, found): key for found in change.find})
        for answer in change.answers:
            to = answer.to
            self.reader.decided[to.command_id] = Answered(
                command_id=to.command_id,
                body_hash=to.body_hash,
                caller=to.caller,
                status=answer.status,
                body=answer.body,
            )
        return [self._say(emit.id, emit.time, emit.data) for emit in change.emits]

    def _shown(self, stage: Stage[Any, Any], where: str, name: str) -> Any:
        if where in stage.outside:
            return stage.outside[where](name)
        state = self.state(where, name)
        return None if state is None else self.stages[where].shows(state)

    def _say(self, event_id: str, at: int, data: Payload) -> Event:
        self.said.append(data)
        if isinstance(data, ProgramPublished):
            self.feed.programs = self.feed.programs.with_version(data)
        return Event(event_id, "/attribution", at, data)


def _stored(value: Any, kind: Any) -> Any:
    """As it comes back from Redis."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=kind)
