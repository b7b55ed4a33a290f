"""The loop: one cell, folded by one owner at a time, exactly once from its first commit to its last.

A cell is one stage and one partition number over all the topics that the stage reads; they share partition count and
key, so all events of a key meet here. A batch takes five steps:

    1 take      records → events; what cannot be read becomes a dead letter of the same commit
    2 load      states, rows and known answers of the batch's keys, in one round trip
    3 fold      `step`, event by event, over an overlay: nothing outside changes
    4 commit    one Redis script: states, rows, answers, outbox, positions, edges; or nothing of it
    5 send      the outbox to Kafka, acks=all; then `trim` what was seen to be sent

**The crash story.** Redis is the authority on how far a cell has come; Kafka's group offset is for lag alone.
- Before 4 nothing has happened: the next owner seeks to the same position and folds the same records again.
- Between 4 and the end of 5 the outbox holds what was decided; the next owner sends it again before it folds anything.
  Ids, order and bytes are the same, and every record carries its *edge* (this cell) and a number without holes per edge
  and target partition: a receiver drops a number that it has seen, and a hole stops it.
- An owner that was paused and wakes up after a successor took over fails the epoch check of 4 and drops everything.
  What it still sends of an earlier commit is what the successor has sent too, under the same numbers.
- A reply of 4 that got lost is asked for again with the same writer token: "mine already" is not another writer.
- **Versions that come late.** A stage that prices by the version in force at an event asks for it while it folds; the
  version may be published already and still on its way to this process. So the cell remembers, durably, which versions
  it has folded (`program:<id>` in its meta). `learn` folds those that became known since: it looks through the cell's
  states for the keys that they can concern and steps each with the version, and the stage says the difference. An owner
  that knows fewer versions than the cell has folded waits for them. What was said last was said knowing all of them.
- Errors: whatever is transient is repeated within a limit; anything else ends the process before 4. No exception is
  swallowed, no batch is skipped.
"""

import asyncio
import logging
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec

from schemas.commands import Answered
from schemas.events import Event, Payload, ProgramPublished, event_json
from schemas.ids import derived_id, partition_of
from schemas.programs import NotYetPublished, Programs
from schemas.topics import BY_NAME, PROGRAMS, TOPIC_OF, Topic
from services.runtime import border
from services.runtime.faults import reach
from services.runtime.stage import Answer, Change, Context, DeadLetter, Emit, Missing, Record, Rows, Stage
from services.runtime.store import TRANSIENT, CellStore, Commit, Outgoing, Verdict

log = logging.getLogger(__name__)

EDGE_HEADER, NUMBER_HEADER = "refstream-edge", "refstream-number"
CACHED_STATES = 100_000
LEARNT_KEYS = 1_000
"""How many keys one commit of `learn` takes in."""
PATIENCE_SECONDS = 30.0
"""How long a cell waits for what is transient (Redis, a program version on its way) before its process ends."""


class Fenced(Exception):
    """Another owner has taken the cell over: drop everything and give it up."""


class EdgeBroken(Exception):
    """A record of an edge is missing: going on would lose it. Stops the cell."""


@dataclass(slots=True)
class _Batch:
    """The overlay of one batch: what its events have changed so far, on top of what was loaded."""

    commit: Commit
    states: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, Rows[Any]] = field(default_factory=dict)
    dirty_rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    dirty_states: set[str] = field(default_factory=set)
    peeked: dict[tuple[str, str], Any] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)


class Cell:
    """One stage and one partition. Not for concurrent use: batches of a cell come one after the other."""

    def __init__(
        self,
        stage: Stage[Any, Any],
        partition: int,
        partitions: int,
        store: CellStore,
        programs: Callable[[], Programs],
        siblings: Mapping[str, Stage[Any, Any]],
        *,
        clock_offset_seconds: int = 0,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.stage, self.partition, self.partitions = stage, partition, partitions
        self.name = f"{stage.name}:{partition}"
        self._store, self._programs, self._siblings = store, programs, siblings
        self._clock_offset_seconds, self._pause = clock_offset_seconds, pause
        self._owner = uuid.uuid4().hex
        self._batches = 0
        self._epoch = 0
        self._meta: dict[str, int] = {}
        self._states: OrderedDict[str, Any] = OrderedDict()

    # --- ownership --------------------------------------------------------------------------------------------------

    async def open(self) -> list[Outgoing]:
        """Take the cell over. Answers what the last owner decided and may not have sent: send it before folding.

        Waits for the program versions that the last owner has folded. Errors: NotYetPublished when they do not come.
        """
        opened = await self._patiently(self._store.open)
        self._epoch, self._meta = opened.epoch, dict(opened.meta)
        self._states.clear()
        await self._know_what_was_folded()
        return list(opened.outbox)

    def position(self, topic: str) -> int:
        """The offset from which the cell reads a topic on."""
        return self._meta.get(f"position:{topic}", 0)

    @property
    def waiting(self) -> int:
        """How many events the cell's states hold that wait for others."""
        return self._meta.get("waiting", 0)

    # --- one batch --------------------------------------------------------------------------------------------------

    async def fold(self, topic_name: str, records: Sequence[Record]) -> list[Outgoing]:
        """Fold a batch of one topic's records and commit it. Answers what is to be sent, in order.

        Errors: Fenced; EdgeBroken; whatever a rule raises that is no refusal (a bug). Nothing was committed then.
        """
        topic, position = BY_NAME[topic_name], self.position(topic_name)
        fresh = [record for record in records if record.offset >= position]
        if not fresh:
            return []
        reach("fetched", self.stage.name)
        self._batches += 1
        batch = _Batch(Commit(self._epoch, f"{self._owner}:{self._batches}"))
        batch.commit.positions[f"position:{topic_name}"] = (position, fresh[-1].offset + 1)
        taken = [
            (record, border.take(record, topic, self.stage, self.partitions, self._clock_offset_seconds))
            for record in fresh
            if self._is_next_of_its_edge(record, batch)
        ]
        await self._load(batch, [(t.key, t.event) for _, t in taken if isinstance(t, border.Folded)])
        reach("loaded", self.stage.name)
        for record, what in taken:
            match what:
                case border.Folded(key=key, event=event):
                    await self._fold_one(batch, key, event, record)
                case DeadLetter():
                    self._dead_letter(batch, what)
                case border.PutBack(key=key):
                    self._send(batch, topic, key.encode(), record.value, _without_edge(record.headers))
                case border.Ignored(why=why):
                    counter = f"ignored:{why}"
                    batch.commit.meta[counter] = self._number(batch, counter) + 1
        reach("folded", self.stage.name)
        await self._commit(batch)
        reach("committed", self.stage.name)
        return batch.commit.outbox

    # --- versions that come late --------------------------------------------------------------------------------------

    async def learn(self) -> list[Outgoing]:
        """Fold the program versions that became known since, and commit it. Answers what is to be sent, in order.

        To be called after `open` and whenever a version becomes known; with nothing new it costs nothing. May take as
        long as reading all states of the cell does, in pieces between which others run. Errors: as `fold`.
        """
        repriced = self.stage.repriced
        if repriced is None:
            return []
        marks, news = self._news()
        if not marks:
            return []
        touched = await self._patiently(lambda: self._touched(news, repriced)) if news else {}
        outgoing: list[Outgoing] = []
        keys = list(touched)
        for start in range(0, max(1, len(keys)), LEARNT_KEYS):
            self._batches += 1
            batch = _Batch(Commit(self._epoch, f"{self._owner}:{self._batches}"))
            here = [(key, touched[key]) for key in keys[start : start + LEARNT_KEYS]]
            await self._load(batch, here)
            for key, event in here:
                await self._fold_one(batch, key, event, Record(PROGRAMS.name, self.partition, 0, None, None))
            if start + LEARNT_KEYS >= len(keys):
                batch.commit.meta |= marks
            await self._commit(batch)
            outgoing += batch.commit.outbox
        return outgoing

    def _news(self) -> tuple[dict[str, int], list[tuple[Event, ProgramPublished]]]:
        """The marks to set, and the versions not folded yet that may concern events folded before they were known.

        A first version is in force from the beginning: no event of the program was folded without it.
        """
        programs = self._programs()
        marks: dict[str, int] = {}
        news: list[tuple[Event, ProgramPublished]] = []
        for program_id in programs:
            versions = programs.versions(program_id)
            folded = self._meta.get(_mark(program_id), 0)
            if versions[-1][1].version <= folded or all(p.pricing != "at_event" for _, p in versions):
                continue
            marks[_mark(program_id)] = versions[-1][1].version
            for since, program in versions:
                if program.version > max(1, folded):
                    number, document = program.version, program.as_document()
                    published = ProgramPublished(
                        program_id=program_id, version=number, effective_at=since, document=document
                    )
                    event_id = derived_id("published", program_id, number)
                    news.append((Event(event_id, "/attribution", since, published), published))
        return marks, news

    async def _touched(
        self,
        news: Sequence[tuple[Event, ProgramPublished]],
        repriced: Callable[[Any, ProgramPublished], bool],
    ) -> dict[str, Event]:
        """The keys that the versions can concern, each with the one of them that is in force from the earliest time.

        A later version may be in force from an earlier time, and a step looks at everything from there on.
        """
        found: dict[str, Event] = {}
        named = [(published.program_id.encode(), event, published) for event, published in news]
        async for states in self._store.scan():
            for key, blob in states.items():
                # Looking for the id is cheaper than decoding, and most states are of other programs.
                likely = [(event, published) for name, event, published in named if name in blob]
                if not likely:
                    continue
                state = self._decode(blob)
                concerned = [event for event, published in likely if repriced(state, published)]
                if concerned:
                    found[key] = min(concerned, key=lambda event: event.time)
            await asyncio.sleep(0)
        return found

    async def _know_what_was_folded(self) -> None:
        marks = [name.removeprefix(_mark("")) for name in self._meta if name.startswith(_mark(""))]
        waited = 0.0
        while True:
            latest = {program_id: self._programs().latest(program_id) for program_id in marks}
            behind = [p for p, known in latest.items() if not known or known.version < self._meta[_mark(p)]]
            if not behind:
                return
            if waited >= PATIENCE_SECONDS:
                raise NotYetPublished(f"{self.name} has folded versions of {behind} that are not known")
            waited += 0.05
            await self._pause(0.05)

    async def trim(self, sent: Sequence[Outgoing]) -> None:
        """Forget what was seen to be sent."""
        await self._patiently(lambda: self._store.trim(self._epoch, [out.number for out in sent]))

    # --- take -------------------------------------------------------------------------------------------------------

    def _is_next_of_its_edge(self, record: Record, batch: _Batch) -> bool:
        """Whether a numbered record is new. A number seen before is a resend; a hole means that a record is lost."""
        headers = dict(record.headers)
        if EDGE_HEADER not in headers:
            return True
        edge, number = headers[EDGE_HEADER].decode(), int(headers[NUMBER_HEADER])
        mark = f"edge:{edge}:{record.topic}"
        last = self._number(batch, mark)
        if number <= last:
            return False
        if number > last + 1:
            raise EdgeBroken(f"{self.name} expects {edge} number {last + 1} on {record.topic}, got {number}")
        batch.commit.meta[mark] = number
        return True

    def _number(self, batch: _Batch, name: str) -> int:
        return batch.commit.meta.get(name, self._meta.get(name, 0))

    # --- load -------------------------------------------------------------------------------------------------------

    async def _load(self, batch: _Batch, events: Sequence[tuple[str, Event]]) -> None:
        keys = dict.fromkeys(key for key, _ in events)
        unknown = [key for key in keys if key not in self._states]
        rows = list(dict.fromkeys((key, row_id) for key, event in events for row_id in self.stage.row_ids(event)))
        commands = list(dict.fromkeys(command for _, event in events if (command := _command_of(event))))
        loaded = await self._patiently(lambda: self._store.load(unknown, rows, commands))
        for key in keys:
            blob = loaded.states.get(key)
            batch.states[key] = (
                self._states[key] if key in self._states else self._decode(blob) if blob else self.stage.empty
            )
            batch.rows[key] = Rows()
        for key, row_id in rows:
            row = loaded.rows.get((key, row_id))
            batch.rows[key].put(row_id, msgspec.msgpack.decode(row, type=self.stage.row) if row else None)
        batch.answered |= loaded.answered

    def _decode(self, blob: bytes) -> Any:
        return msgspec.msgpack.decode(blob, type=type(self.stage.empty))

    async def _supply(self, batch: _Batch, key: str, missing: Missing) -> None:
        """Load what a step found missing."""
        match missing.what:
            case ("rows",):
                stored = await self._patiently(lambda: self._store.load_rows(key))
                decode = msgspec.msgpack.decode
                batch.rows[key].fill({row_id: decode(blob, type=self.stage.row) for row_id, blob in stored.items()})
            case ("peek", stage, other):
                partition = partition_of(other, self.partitions)
                blob = await self._patiently(lambda: self._store.peek(stage, partition, other))
                kind = type(self._siblings[stage].empty)
                batch.peeked[stage, other] = msgspec.msgpack.decode(blob, type=kind) if blob else None
            case _:
                raise missing

    # --- fold -------------------------------------------------------------------------------------------------------

    async def _fold_one(self, batch: _Batch, key: str, event: Event, record: Record) -> None:
        if _command_of(event) in batch.answered:
            return
        change = await self._step(batch, key, event, record)
        if change.state is not None and change.state != batch.states[key]:
            waiting = self.stage.waiting(change.state) - self.stage.waiting(batch.states[key])
            if waiting:
                batch.commit.meta["waiting"] = self._number(batch, "waiting") + waiting
            batch.states[key] = change.state
            batch.dirty_states.add(key)
        for row_id, row in change.rows.items():
            batch.rows[key].put(row_id, row)
            batch.dirty_rows.setdefault(key, {})[row_id] = row
        batch.commit.find.update(dict.fromkeys(change.find, key))
        for emit in change.emits:
            self._emit(batch, emit)
        for answer in change.answers:
            self._answer(batch, key, answer, event)
        for letter in change.dead_letters:
            if BY_NAME[letter.record.topic].first_reader == self.stage.name:
                self._dead_letter(batch, letter)

    async def _step(self, batch: _Batch, key: str, event: Event, record: Record) -> Change[Any, Any]:
        def peek(stage: str, other: str) -> Any:
            if stage == self.stage.name and partition_of(other, self.partitions) == self.partition:
                own = batch.states.get(other, self._states.get(other))
                if own is not None:
                    return None if own == self.stage.empty else own
            if (stage, other) not in batch.peeked:
                raise Missing("peek", stage, other)
            return batch.peeked[stage, other]

        waited = 0.0
        while True:
            context = Context(key, self._programs(), batch.rows[key], record, peek)
            try:
                return self.stage.step(context, batch.states[key], event)
            except Missing as missing:
                await self._supply(batch, key, missing)
            except NotYetPublished:
                # The version is on its way: whoever spoke of it read it from the same topic.
                if waited >= PATIENCE_SECONDS:
                    raise
                waited += 0.05
                await self._pause(0.05)

    def _emit(self, batch: _Batch, emit: Emit) -> None:
        topic = TOPIC_OF[type(emit.data)]
        key = emit.key or topic.key(emit.data)
        self._send(batch, topic, key.encode(), self._value(emit.id, emit.time, emit.data))

    def _value(self, event_id: str, time: int, data: Payload) -> bytes:
        return event_json(Event(event_id, f"/{self.stage.service}", time, data))

    def _answer(self, batch: _Batch, key: str, answer: Answer, event: Event) -> None:
        to = answer.to
        decision = Answered(
            command_id=to.command_id, body_hash=to.body_hash, caller=to.caller, status=answer.status, body=answer.body
        )
        batch.commit.answers[to.command_id] = decision.model_dump_json().encode()
        batch.answered.add(to.command_id)
        value = self._value(derived_id("answer", to.command_id), event.time, decision)
        self._send(batch, BY_NAME[f"answers.{self.stage.service}"], key.encode(), value)

    def _dead_letter(self, batch: _Batch, letter: DeadLetter) -> None:
        record = letter.record
        told = {
            "reason": letter.reason,
            "field": letter.field,
            "service": self.stage.service,
            "topic": record.topic,
            "partition": str(record.partition),
            "offset": str(record.offset),
        }
        headers = tuple((name, text.encode()) for name, text in told.items())
        self._send(batch, BY_NAME["dead-letters"], record.key, record.value, headers)

    def _send(
        self,
        batch: _Batch,
        topic: Topic,
        key: bytes | None,
        value: bytes | None,
        headers: tuple[tuple[str, bytes], ...] = (),
    ) -> None:
        target = partition_of(key, self.partitions) if key else self.partition
        number = self._number(batch, "outbox") + 1
        mark = f"sent:{topic.name}:{target}"
        of_edge = self._number(batch, mark) + 1
        batch.commit.meta |= {"outbox": number, mark: of_edge}
        edge = ((EDGE_HEADER, self.name.encode()), (NUMBER_HEADER, str(of_edge).encode()))
        batch.commit.outbox.append(Outgoing(number, topic.name, target, key, value, (*headers, *edge)))

    # --- commit -----------------------------------------------------------------------------------------------------

    async def _commit(self, batch: _Batch) -> None:
        encode = msgspec.msgpack.encode
        commit = batch.commit
        commit.states = {key: encode(batch.states[key]) for key in batch.dirty_states}
        commit.rows = {
            key: {row_id: None if row is None else encode(row) for row_id, row in rows.items()}
            for key, rows in batch.dirty_rows.items()
        }
        verdict = await self._patiently(lambda: self._store.commit(commit))
        if verdict is Verdict.FENCED:
            raise Fenced(self.name)
        self._meta.update(commit.meta)
        self._meta.update({name: new for name, (_, new) in commit.positions.items()})
        self._states.update(batch.states)
        for key in batch.states:
            self._states.move_to_end(key)
        while len(self._states) > CACHED_STATES:
            self._states.popitem(last=False)

    async def _patiently(self, attempt: Callable[[], Awaitable[Any]]) -> Any:
        """Repeat what is transient (a lost connection, a server that is loading) within a limit."""
        waited, delay = 0.0, 0.02
        while True:
            try:
                return await attempt()
            except TRANSIENT as error:
                if waited >= PATIENCE_SECONDS:
                    raise
                log.warning("waiting for the store", extra={"cell": self.name, "error": type(error).__name__})
                await self._pause(delay)
                waited, delay = waited + delay, min(1.0, delay * 2)


def _mark(program_id: str) -> str:
    """The meta field that says up to which version the cell has folded a program."""
    return f"program:{program_id}"


@cache
def _is_commanded(kind: type[Payload]) -> bool:
    return "command_id" in kind.model_fields


def _command_of(event: Event) -> str | None:
    """The id of the command that the event is, or is on behalf of."""
    return event.data.command_id if _is_commanded(type(event.data)) else None  # type: ignore[attr-defined]


def _without_edge(headers: tuple[tuple[str, bytes], ...]) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, value) for name, value in headers if name not in (EDGE_HEADER, NUMBER_HEADER))
