"""The loop: one cell, folded by one owner at a time, exactly once from its first commit to its last.

A cell is one stage and one partition number over all the topics that the stage reads; they share partition count and
key, so all events of a key meet here. A batch takes five steps:

    1 take      records → events; what cannot be read becomes a dead letter of the same commit
    2 load      states, rows and known answers of the batch's keys, in one round trip
    3 fold      `step`, event by event, over an overlay: nothing outside changes
    4 commit    one Redis script: states, rows, answers, outbox, positions, edges; or nothing of it
    5 send      the outbox to Kafka, acks=all, its journal entry first; then `trim` what was seen to be sent

**The crash story.** Redis is the authority on how far a cell has come; Kafka's group offset is for lag alone.
- Before 4 nothing has happened: the next owner seeks to the same position and folds the same records again.
- Between 4 and the end of 5 the outbox holds what was decided; the next owner sends it again before it folds anything.
  Ids, order and bytes are the same, and every record carries its *edge* (this cell) and a number without holes per edge
  and target partition: a receiver drops a number that it has seen, and a hole stops it.
- Redis that went back to an older copy has another count of commits, which 2 and 4 check as well: fenced, see below.
- An owner that was paused and wakes up after a successor took over fails the epoch check of 4 and drops everything.
  What it still sends of an earlier commit is what the successor has sent too, under the same numbers.
- A reply of 4 that got lost is asked for again with the same writer token: "mine already" is not another writer.
- An owner that decided something, was paused, and wakes up after Redis lost it *and* a successor went on without it:
  Redis cannot tell. The journal can: each owner claims it first, what a former one writes behind the claim does not
  count, and an owner sends what an entry tells of only when it knows that the entry counts (`recovery.confirm`).
- **Versions that come late.** A stage that prices by the version in force at an event asks for it while it folds; the
  version may be published already and still on its way to this process. So the cell remembers, durably, which versions
  it has folded (`program:<id>` in its meta). `learn` folds those that became known since: it looks through the cell's
  states for the keys that they can concern and steps each with the version, and the stage says the difference. An owner
  that knows fewer versions than the cell has folded waits for them. What was said last was said knowing all of them.
- **Redis loses what it had** (emptied, or restored from an older copy). The journal has an entry per commit, so an
  owner that finds fewer commits in Redis than entries folds those again (`replay`), to the same bytes, and goes on
  behind them. Nobody may read the cell meanwhile. What was committed without an entry has said nothing: it is folded
  anew. Where what Redis has and the entries are not one chain (a copy from before something else was decided under the
  same numbers, or of no single moment) it is thrown away (`empty`).
- Errors: whatever is transient is repeated within a limit; anything else ends the process before 4. No exception is
  swallowed, no batch is skipped.
"""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import msgspec
from redis.exceptions import ResponseError

from schemas.commands import Answered
from schemas.events import Event, Payload, ProgramPublished, event_json
from schemas.ids import derived_id, partition_of
from schemas.programs import NotYetPublished, Programs
from schemas.topics import BY_NAME, JOURNALS, PROGRAMS, TOPIC_OF, Topic
from services.runtime import border, journal
from services.runtime.cache import Cache
from services.runtime.codec import Codec
from services.runtime.faults import reach
from services.runtime.journal import Diverged, Entry, Last, Learnt, LookedUp
from services.runtime.reader import Rebuilding
from services.runtime.stage import Answer, Change, Context, DeadLetter, Emit, Missing, Record, Rows, Stage
from services.runtime.store import CellStore, Commit, Fenced, Moment, Outgoing, Verdict, passes, tag
from services.runtime.tally import Tally, tallied, tallies
from services.runtime.tracing import Headers, onward

log = logging.getLogger(__name__)

EDGE_HEADER, NUMBER_HEADER = "refstream-edge", "refstream-number"
LEARNT_KEYS = 1_000
"""How many keys one commit of `learn` takes in."""
PATIENCE_SECONDS = 30.0
"""How long a cell waits for what is transient (Redis, a program version on its way) before its process ends."""


class Superseded(Exception):
    """Another one has claimed the cell on the log: what its former owner had not sent yet does not count."""


class GivenUp(Exception):
    """The cell was let go while its batch waited for the store: the batch is the next owner's."""


class EdgeBroken(Exception):
    """A record of an edge is missing: going on would lose it. Stops the cell."""


class LogBehind(Exception):
    """Redis holds commits that the log does not know. Stops the cell: the log is the record of everything."""


T = TypeVar("T")
Taken = Sequence[tuple[Record, border.Taken]]
"""Records, each with what the border takes it for."""


@dataclass(slots=True)
class _Batch:
    """The overlay of one batch: what its events have changed so far, on top of what was loaded.

    `sent`: up to which number all that is said is on the log already, and need not go to the outbox. The last four make
    the journal's entry of the batch: what was known and looked up, what was said.
    """

    commit: Commit
    states: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, Rows[Any]] = field(default_factory=dict)
    dirty_rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    dirty_states: set[str] = field(default_factory=set)
    answered: set[str] = field(default_factory=set)
    sent: int = 0
    programs: Programs = field(default_factory=Programs)
    looked_up: dict[tuple[str, str], bytes | None] = field(default_factory=dict)
    said: dict[str, int] = field(default_factory=dict)
    digest: Any = field(default_factory=journal.new_digest)


class Cell:
    """One stage and one partition. Not for concurrent use: batches of a cell come one after the other.

    `owner`: 32 hexadecimal digits that tell this owner from the others; random where none are given. `cache`: shared
    with the other cells of the process.
    """

    def __init__(
        self,
        stage: Stage[Any, Any],
        partition: int,
        partitions: int,
        store: CellStore,
        programs: Callable[[], Programs],
        siblings: Mapping[str, Stage[Any, Any]],
        codec: Codec,
        *,
        clock_offset_seconds: int = 0,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        owner: str | None = None,
        cache: Cache | None = None,
    ) -> None:
        self.stage, self.partition, self.partitions = stage, partition, partitions
        self.name = f"{stage.name}:{partition}"
        self._tag, self._codec = tag(stage.name, partition), codec
        self._edge, self._source = (EDGE_HEADER, self.name.encode()), f"/{stage.service}"
        self._store, self._programs, self._siblings = store, programs, siblings
        self._clock_offset_seconds, self._pause = clock_offset_seconds, pause
        self._owner = owner or uuid.uuid4().hex
        self._batches = 0
        self._epoch = 0
        self._meta: dict[str, int] = {}
        self._cache = cache or Cache()
        self._states = self._cache.shelf()
        self._last = Last()
        self._sent = self._sent_noted = self._said_last = 0
        self._known: dict[str, int] = {}
        self.journal_end = 0
        """The offset behind what the owner knows of its journal."""
        self.is_astray = False
        """Whether Redis holds commits that are not the journal's: it went back to a copy of what never came to be."""
        self.said_differently = 0
        self.let_go = False
        self.folded_at: dict[str, int] = {}
        """By topic: when the broker had the last record that this owner folded."""
        self.opened_at = 0
        """When this owner had it ready to fold, by its clock, microseconds since 1970 UTC; for its metrics alone."""

    # --- ownership --------------------------------------------------------------------------------------------------

    async def open(self, last: Last | None = None) -> list[Outgoing]:
        """Take the cell over. Answers what the last owner decided and may not have sent: send it before folding.

        `last`: where the cell's journal ends; None: it is not asked. Where Redis is `behind` it, `replay` first.
        Waits for the program versions that the last owner knew. Errors: NotYetPublished when they do not come;
        LogBehind when Redis holds more than the log.
        """
        self._last = last or Last()
        opened = await self._patiently(lambda: self._store.open(self._last))
        self._epoch, self._meta = opened.epoch, dict(opened.meta)
        self._states = self._cache.shelf()
        self._known = self._counts(_KNOWN)
        self.is_astray = last is not None and not self._is_of_the_chain(opened.outbox)
        if self.is_astray:
            return []
        left = [out for out in opened.outbox if out.number > self._last.sent]
        self._sent = left[0].number - 1 if left else self._meta.get("outbox", 0)
        if last is not None and not self.behind:
            self._refuse_a_short_log(left)
        if len(left) < len(opened.outbox):
            await self.trim([out for out in opened.outbox if out.number <= self._last.sent])
        if not self.behind:
            await self._at_least(self._known)
        return [self._in_own_name(out) for out in left]

    def claim(self) -> Outgoing:
        """What an owner tells the journal before anything else: from here on no entry of a former one counts."""
        return self._told(0, Entry(self.commits, self._epoch, self._last.sent, "", owner=bytes.fromhex(self._owner)))

    def is_superseded_by(self, last: Last) -> bool:
        """Whether the end of its journal shows the cell to be another's: a later owner, or an earlier of one epoch."""
        if last.epoch == self._epoch:
            return last.owner not in (b"", bytes.fromhex(self._owner))
        return last.epoch > self._epoch

    def _in_own_name(self, out: Outgoing) -> Outgoing:
        """A former owner's entry as this one sends it: behind the claim the former owner's own does not count."""
        if out.topic != JOURNALS[self.stage.name].name:
            return out
        return self._told(out.number, msgspec.structs.replace(journal.decoded(out.value), epoch=self._epoch))

    def _told(self, number: int, entry: Entry) -> Outgoing:
        topic = JOURNALS[self.stage.name].name
        return Outgoing(number, topic, self.partition, self.name.encode(), journal.encoded(entry), ())

    @property
    def behind(self) -> bool:
        """Whether the journal holds commits that Redis does not: they are to be folded again before anything else."""
        return self.is_astray or self.commits < self._last.number

    @property
    def commits(self) -> int:
        """How many batches have been committed, ever."""
        return self._meta.get("commits", 0)

    @property
    def _moment(self) -> Moment:
        return Moment(self._epoch, self.commits)

    @property
    def epoch(self) -> int:
        """Of this ownership: each has a higher one than those before."""
        return self._epoch

    def _is_of_the_chain(self, outbox: Sequence[Outgoing]) -> bool:
        """Whether what Redis holds ends with the journal's last entry, or goes on from it. With less, `replay` sees."""
        if self.commits == self._last.number:
            return self._meta.get("digest", 0) == self._last.digest
        following = (entry for entry in self._entries(outbox) if entry.number == self._last.number + 1)
        return all(entry.follows == self._last.digest for entry in following)

    def _entries(self, outbox: Sequence[Outgoing]) -> list[Entry]:
        return [journal.decoded(out.value) for out in outbox if out.topic == JOURNALS[self.stage.name].name]

    def _refuse_a_short_log(self, left: Sequence[Outgoing]) -> None:
        first = next((entry.number for entry in self._entries(left)), self.commits + 1)
        if first > self._last.number + 1:
            raise LogBehind(
                f"{self.name} has committed {self.commits} batches, its journal ends at {self._last.number}: Kafka has "
                f"lost records. Restore Kafka; or, to go back to what it holds, empty Redis and start again"
            )

    def position(self, topic: str) -> int:
        """The offset from which the cell reads a topic on."""
        return self._meta.get(f"position:{topic}", 0)

    @property
    def waiting(self) -> int:
        """How many events the cell's states hold that wait for others."""
        return self._meta.get("waiting", 0)

    @property
    def duplicates(self) -> int:
        """How many records sent again by other cells were dropped, ever."""
        return self._meta.get(DUPLICATES, 0)

    @property
    def unsent(self) -> int:
        """How many records are decided and not yet seen to be sent."""
        return self._meta.get("outbox", 0) - self._sent

    def ignored(self) -> dict[str, int]:
        """How many records were nothing to this stage, ever, by why."""
        return self._counts("ignored:")

    def said(self) -> dict[str, int]:
        """How many records the cell has said, ever, by topic."""
        by_topic: dict[str, int] = {}
        for mark, count in self._counts("sent:").items():
            topic = mark.rpartition(":")[0]
            by_topic[topic] = by_topic.get(topic, 0) + count
        return by_topic

    def tallies(self) -> list[Tally]:
        """What the cell has decided, ever."""
        return list(tallies(dict(self._meta)))

    def _counts(self, prefix: str) -> dict[str, int]:
        of = dict(self._meta)  # a copy at once: who shows it to Prometheus is another thread
        return {name.removeprefix(prefix): count for name, count in of.items() if name.startswith(prefix)}

    async def let_read(self) -> None:
        """Let the cell be read: its owner has found it whole."""
        await self._patiently(lambda: self._store.whole(self._epoch, self.commits))

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
        # By the same versions as a whole: a step that asks for one on its way has all of the batch folded anew.
        batch = await self._once_published(lambda: self._folded(topic, fresh))
        reach("folded", self.stage.name)
        batch.commit.positions[f"position:{topic_name}"] = (position, fresh[-1].offset + 1)
        await self._commit(batch, self._entry(batch, topic_name, start=position, end=fresh[-1].offset + 1))
        self.folded_at[topic_name] = fresh[-1].appended_at
        reach("committed", self.stage.name)
        return batch.commit.outbox

    async def _folded(self, topic: Topic, fresh: Sequence[Record]) -> _Batch:
        batch = self._begin(self._programs())
        taken = self._take(batch, topic, fresh, self._clock_offset_seconds)
        await self._load(batch, _events_of(taken))
        reach("loaded", self.stage.name)
        await self._fold_taken(batch, topic, taken)
        return batch

    def _begin(self, programs: Programs) -> _Batch:
        self._batches += 1
        batch = _Batch(Commit(self._epoch, f"{self._owner}:{self._batches}"))
        self._begin_entry(batch, programs)
        return batch

    def _begin_entry(self, batch: _Batch, programs: Programs) -> None:
        """What is decided from here on is one entry of the journal, which has the outbox's next number itself."""
        batch.programs = programs
        batch.looked_up, batch.said, batch.digest = {}, {}, journal.new_digest()
        batch.commit.meta["commits"] = self._number(batch, "commits") + 1
        batch.commit.meta["outbox"] = self._number(batch, "outbox") + 1

    def _entry(self, batch: _Batch, topic: str, **of: Any) -> Entry:
        """The journal's entry of a batch. `of`: the fields that say what was folded."""
        counts = batch.programs.counts()
        news = {program_id: count for program_id, count in counts.items() if self._known.get(program_id) != count}
        self._learn_of(batch, news)
        entry = Entry(
            number=batch.commit.meta["commits"],
            epoch=self._epoch,
            sent=self._sent,
            topic=topic,
            clock_offset=self._clock_offset_seconds,
            programs=news,
            looked_up=tuple(LookedUp(*at, shown) for at, shown in batch.looked_up.items()),
            said=batch.said,
            follows=self._meta.get("digest", 0),
            **of,
        )
        entry = journal.sealed(entry, batch.digest)
        batch.commit.meta["digest"] = entry.digest
        return entry

    async def rest(self) -> list[Outgoing]:
        """Note in the journal that all was sent, with nothing else in hand. Answers the note, to be sent, or nothing.

        Without it a rebuild would have to send again whatever the last entries said.
        """
        if not self._sent_noted < self._said_last <= self._sent:
            return []
        batch = self._begin(self._programs())
        await self._commit(batch, self._entry(batch, PROGRAMS.name))
        return batch.commit.outbox

    # --- folding again ------------------------------------------------------------------------------------------------

    async def empty(self) -> None:
        """Throw away what the store holds of the cell, to fold all of it again. Errors: Fenced."""
        if not await self._patiently(lambda: self._store.empty(self._epoch, self.commits)):
            raise Fenced(self.name)
        self._meta, self._known = {}, {}
        self._states = self._cache.shelf()
        self.said_differently, self.is_astray = 0, False

    async def replay(self, told: Sequence[tuple[Entry, Sequence[Record]]]) -> list[Outgoing]:
        """Fold again what journal entries tell of, in one commit. Answers what may not have been sent by then.

        `told`: the entries that follow on the cell's last commit, each with the records of its range that the topic
        still holds. Errors: Fenced; Diverged; NotYetPublished when versions that were known then do not come.
        """
        self._batches += 1
        batch = _Batch(Commit(self._epoch, f"{self._owner}:{self._batches}"), sent=self._last.sent)
        all_taken = [self._take(batch, BY_NAME[e.topic], records, e.clock_offset) for e, records in told]
        learnt = [await self._published_again(entry) for entry, _ in told]
        events = [pair for taken in all_taken for pair in _events_of(taken)] + [
            pair for news in learnt for pair in news
        ]
        await self._load(batch, events)
        for (entry, _), taken, news in zip(told, all_taken, learnt, strict=True):
            self._learn_of(batch, entry.programs)
            self._begin_entry(batch, (await self._at_least(self._known)).upto(self._known))
            if batch.commit.meta["commits"] != entry.number or self._number(batch, "digest") != entry.follows:
                raise Diverged(f"{self.name}: entry {entry.number} does not follow on what Redis holds")
            batch.commit.meta["digest"] = entry.digest
            batch.looked_up = {(at.where, at.name): at.shown for at in entry.looked_up}
            said = len(batch.commit.outbox)
            await self._fold_taken(batch, BY_NAME[entry.topic], taken, again=True)
            for key, event in news:
                await self._fold_one(batch, key, event, self._learnt_record(), again=True)
            batch.commit.meta |= entry.marks
            self._compare(batch, entry, said)
            if entry.topic != PROGRAMS.name:
                self._advance(batch, entry)
        batch.commit.meta["sent"] = self._last.sent
        if batch.commit.meta["commits"] >= self._last.number:
            batch.commit.ready = True
        await self._write(batch)
        self._sent = min(self._last.sent, self._meta["outbox"])
        return batch.commit.outbox

    def _advance(self, batch: _Batch, entry: Entry) -> None:
        name = f"position:{entry.topic}"
        expected, reached = batch.commit.positions.get(name, (self.position(entry.topic),) * 2)
        if reached != entry.start:
            raise Diverged(f"{self.name}: entry {entry.number} reads {entry.topic} from {entry.start}, not {reached}")
        batch.commit.positions[name] = (expected, entry.end)

    def _compare(self, batch: _Batch, entry: Entry, said: int) -> None:
        """Whether the same was said. Only compacted topics may have forgotten what something was said about."""
        if batch.said != entry.said:
            if not BY_NAME[entry.topic].compacted:
                raise Diverged(
                    f"{self.name} says other records for its commit {entry.number} ({entry.topic} {entry.start} to "
                    f"{entry.end}) than it said then: {batch.said}, not {entry.said}. Where the cell was empty before, "
                    f"the rules of this version are others: run the version that wrote the journal"
                )
            for mark, count in batch.said.items():
                batch.commit.meta[mark] -= count
            del batch.commit.outbox[said:]
            batch.commit.meta["outbox"] += sum(entry.said.values()) - sum(batch.said.values())
            for mark, count in entry.said.items():
                batch.commit.meta[mark] = self._number(batch, mark) + count
        elif journal.sealed(entry, batch.digest) != entry:
            self.said_differently += 1

    async def _published_again(self, entry: Entry) -> list[tuple[str, Event]]:
        programs = await self._at_least(entry.programs) if entry.learnt else Programs()
        return [
            (learnt.key, _as_event(_published(programs, learnt.program_id, learnt.version))) for learnt in entry.learnt
        ]

    def _learn_of(self, batch: _Batch, counts: Mapping[str, int]) -> None:
        self._known.update(counts)
        batch.commit.meta |= {_KNOWN + program_id: count for program_id, count in counts.items()}

    async def _at_least(self, counts: Mapping[str, int]) -> Programs:
        """The versions that are known here, once they are so many. Errors: NotYetPublished when they do not come."""

        async def enough() -> Programs:
            programs = self._programs()
            programs.upto(counts)
            return programs

        return await self._once_published(enough)

    async def _once_published(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Repeat what asks for a version that is on its way: whoever spoke of it read it from the same topic."""
        waited = 0.0
        while True:
            try:
                return await attempt()
            except NotYetPublished:
                if waited >= PATIENCE_SECONDS:
                    raise
                waited += 0.05
                await self._pause(0.05)

    # --- versions that come late --------------------------------------------------------------------------------------

    async def learn(self) -> list[Outgoing]:
        """Fold the program versions that became known since, and commit it. Answers what is to be sent, in order.

        To be called after `open` and whenever a version becomes known; with nothing new it costs nothing. May take as
        long as reading all states of the cell does, in pieces between which others run. Errors: as `fold`.
        """
        repriced = self.stage.repriced
        if repriced is None:
            return []
        programs = self._programs()
        marks, news = self._news(programs)
        if not marks:
            return []
        touched = await self._patiently(lambda: self._touched(news, repriced)) if news else {}
        outgoing: list[Outgoing] = []
        keys = list(touched)
        for start in range(0, max(1, len(keys)), LEARNT_KEYS):
            batch = self._begin(programs)
            here = [(key, _as_event(touched[key])) for key in keys[start : start + LEARNT_KEYS]]
            await self._load(batch, here)
            for key, event in here:
                await self._fold_one(batch, key, event, self._learnt_record())
            reached = marks if start + LEARNT_KEYS >= len(keys) else {}
            batch.commit.meta |= reached
            learnt = tuple(Learnt(key, touched[key].program_id, touched[key].version) for key, _ in here)
            await self._commit(batch, self._entry(batch, PROGRAMS.name, learnt=learnt, marks=reached))
            outgoing += batch.commit.outbox
        return outgoing

    def _learnt_record(self) -> Record:
        return Record(PROGRAMS.name, self.partition, 0, None, None)

    def _news(self, programs: Programs) -> tuple[dict[str, int], list[ProgramPublished]]:
        """The marks to set, and the versions not folded yet that may concern events folded before they were known.

        A first version is in force from the beginning: no event of the program was folded without it.
        """
        marks: dict[str, int] = {}
        news: list[ProgramPublished] = []
        for program_id in programs:
            versions = programs.versions(program_id)
            folded = self._meta.get(_mark(program_id), 0)
            if versions[-1][1].version <= folded or all(p.pricing != "at_event" for _, p in versions):
                continue
            marks[_mark(program_id)] = versions[-1][1].version
            news += [
                _published(programs, program_id, program.version)
                for _, program in versions
                if program.version > max(1, folded)
            ]
        return marks, news

    async def _touched(
        self,
        news: Sequence[ProgramPublished],
        repriced: Callable[[Any, ProgramPublished], bool],
    ) -> dict[str, ProgramPublished]:
        """The keys that the versions can concern, in order, each with the one that is in force from the earliest time.

        A later version may be in force from an earlier time, and a step looks at everything from there on.
        """
        found: dict[str, ProgramPublished] = {}
        named = [(published.program_id.encode(), published) for published in news]
        async for states in self._store.scan(self._moment):
            for key, blob in states.items():
                # Looking for the id is cheaper than decoding, and most states are of other programs.
                plain = self._codec.plain(blob, self._tag, key)
                likely = [published for name, published in named if name in plain]
                if not likely:
                    continue
                state = self._state(key, plain)
                concerned = [published for published in likely if repriced(state, published)]
                if concerned:
                    found[key] = min(concerned, key=lambda published: published.effective_at)
            await asyncio.sleep(0)
        return dict(sorted(found.items()))

    async def trim(self, sent: Sequence[Outgoing]) -> None:
        """Forget what was seen to be sent. Batches are sent in order, so nothing before it is unsent."""
        if sent:
            self._sent = max(self._sent, sent[-1].number)
            await self._patiently(lambda: self._store.trim(self._epoch, sent[-1].number))

    # --- take -------------------------------------------------------------------------------------------------------

    def _take(self, batch: _Batch, topic: Topic, records: Sequence[Record], clock_offset: int) -> Taken:
        return [
            (record, border.take(record, topic, self.stage, self.partitions, clock_offset))
            for record in records
            if topic.from_outside or self._is_next_of_its_edge(record, batch)
        ]

    def _is_next_of_its_edge(self, record: Record, batch: _Batch) -> bool:
        """Whether a numbered record is new. A number seen before is a resend; a hole means that a record is lost.

        On the platform's topics numbers mean nothing: anybody may write them there, and repeats count once anyway.
        """
        edge = number = None
        for name, value in record.headers:
            if name == EDGE_HEADER:
                edge = value
            elif name == NUMBER_HEADER:
                number = int(value)
        if edge is None or number is None:
            return True
        mark = _edge_mark(edge, record.topic)
        last = self._number(batch, mark)
        if number <= last:
            batch.commit.meta[DUPLICATES] = self._number(batch, DUPLICATES) + 1
            return False
        if number > last + 1:
            raise EdgeBroken(f"{self.name} expects {edge.decode()} number {last + 1} on {record.topic}, got {number}")
        batch.commit.meta[mark] = number
        return True

    def _number(self, batch: _Batch, name: str) -> int:
        return batch.commit.meta.get(name, self._meta.get(name, 0))

    # --- load -------------------------------------------------------------------------------------------------------

    async def _load(self, batch: _Batch, events: Sequence[tuple[str, Event]]) -> None:
        keys = dict.fromkeys(key for key, _ in events)
        cached = {key: self._states.get(key) for key in keys}
        unknown = [key for key, state in cached.items() if state is None]
        rows = list(dict.fromkeys((key, row_id) for key, event in events for row_id in self.stage.row_ids(event)))
        commands = list(dict.fromkeys(command for _, event in events if (command := _command_of(event))))
        loaded = await self._patiently(lambda: self._store.load(unknown, rows, commands, self._moment))
        for key, state in cached.items():
            self._have(batch, key, state, loaded.states.get(key))
        for key, row_id in rows:
            row = loaded.rows.get((key, row_id))
            batch.rows[key].put(row_id, self._row(key, row_id, row) if row else None)
        batch.answered |= loaded.answered

    def _have(self, batch: _Batch, key: str, cached: Any | None, blob: bytes | None) -> None:
        state = cached
        if state is None and blob is not None:
            state = self._state(key, blob)
            self._states.put(key, state, len(blob))
        batch.states[key] = self.stage.empty if state is None else state
        batch.rows[key] = Rows()

    def _state(self, key: str, blob: bytes) -> Any:
        return self._codec.decode(blob, type(self.stage.empty), self._tag, key)

    def _row(self, key: str, row_id: str, blob: bytes) -> Any:
        return self._codec.decode(blob, self.stage.row, self._tag, key, row_id)

    async def _supply(self, batch: _Batch, key: str, missing: Missing) -> None:
        """Load what a step found missing."""
        match missing.what:
            case ("rows",):
                stored = await self._patiently(lambda: self._store.load_rows(key, self._moment))
                batch.rows[key].fill({row_id: self._row(key, row_id, blob) for row_id, blob in stored.items()})
            case ("own", other):
                loaded = await self._patiently(lambda: self._store.load([other], [], [], self._moment))
                self._have(batch, other, None, loaded.states.get(other))
            case ("peek", where, name) if where in self.stage.outside:
                batch.looked_up[where, name] = msgspec.msgpack.encode(self.stage.outside[where](name))
            case ("peek", where, name):
                sibling, partition = self._siblings[where], partition_of(name, self.partitions)
                blob = await self._patiently(lambda: self._store.peek(where, partition, name))
                at = tag(where, partition)
                state = self._codec.decode(blob, type(sibling.empty), at, name) if blob else None
                batch.looked_up[where, name] = None if state is None else msgspec.msgpack.encode(sibling.shows(state))
            case _:
                raise missing

    # --- fold -------------------------------------------------------------------------------------------------------

    async def _fold_taken(self, batch: _Batch, topic: Topic, taken: Taken, *, again: bool = False) -> None:
        for record, what in taken:
            match what:
                case border.Folded(key=key, event=event):
                    await self._fold_one(batch, key, event, record, again=again)
                case DeadLetter():
                    self._dead_letter(batch, what)
                case border.PutBack(key=key):
                    self._send(batch, topic, key.encode(), record.value, _without_edge(record.headers))
                case border.Ignored(why=why):
                    counter = f"ignored:{why}"
                    batch.commit.meta[counter] = self._number(batch, counter) + 1

    async def _fold_one(self, batch: _Batch, key: str, event: Event, record: Record, *, again: bool = False) -> None:
        if batch.answered and _command_of(event) in batch.answered:
            return
        change = await self._step(batch, key, event, record, again)
        if change.state is not None and change.state != batch.states[key]:
            waiting = self.stage.waiting(change.state) - self.stage.waiting(batch.states[key])
            if waiting:
                batch.commit.meta["waiting"] = self._number(batch, "waiting") + waiting
            batch.states[key] = change.state
            batch.dirty_states.add(key)
        for row_id, row in change.rows.items():
            batch.rows[key].put(row_id, row)
            batch.dirty_rows.setdefault(key, {})[row_id] = row
        for name in change.find:
            batch.commit.find[name] = key
        traced = onward(record, self.name)
        for emit in change.emits:
            self._emit(batch, emit, traced)
        for answer in change.answers:
            self._answer(batch, key, answer, event, traced)
        for command_id in change.forget:
            self._keep(batch, Answered(command_id=command_id, body_hash="", caller="", status=410, body={}))
        for letter in change.dead_letters:
            if BY_NAME[letter.record.topic].first_reader == self.stage.name:
                self._dead_letter(batch, letter)

    async def _step(self, batch: _Batch, key: str, event: Event, record: Record, again: bool) -> Change[Any, Any]:
        def peek(where: str, name: str) -> Any:
            if where == self.stage.name and partition_of(name, self.partitions) == self.partition:
                own = batch.states.get(name, self._states.get(name))
                if own is None:
                    raise Missing("own", name)
                return None if own == self.stage.empty else self.stage.shows(own)
            if (where, name) not in batch.looked_up:
                raise Missing("peek", where, name)
            return self._shown(where, batch.looked_up[where, name])

        while True:
            context = Context(key, batch.programs, batch.rows[key], record, peek)
            try:
                return self.stage.step(context, batch.states[key], event)
            except Missing as missing:
                if again and missing.what[0] == "peek":
                    raise Diverged(
                        f"{self.name} looks up {missing.what[1:]} for {event.id}, and did not then"
                    ) from None
                await self._supply(batch, key, missing)

    def _shown(self, where: str, blob: bytes | None) -> Any:
        if blob is None:
            return None
        if where in self.stage.outside:
            return msgspec.msgpack.decode(blob)
        sibling = self._siblings[where]
        return msgspec.msgpack.decode(blob, type=type(sibling.shows(sibling.empty)))

    def _emit(self, batch: _Batch, emit: Emit, traced: Headers) -> None:
        for name, count in tallied(emit.data):
            batch.commit.meta[name] = self._number(batch, name) + count
        topic = TOPIC_OF[type(emit.data)]
        key = emit.key or topic.key(emit.data)
        self._send(batch, topic, key.encode(), self._value(emit.id, emit.time, emit.data, emit.written), traced)

    def _value(self, event_id: str, time: int, data: Payload, written: bytes | None = None) -> bytes:
        return event_json(Event(event_id, self._source, time, data), written)

    def _answer(self, batch: _Batch, key: str, answer: Answer, event: Event, traced: Headers) -> None:
        to = answer.to
        decision = Answered(
            command_id=to.command_id, body_hash=to.body_hash, caller=to.caller, status=answer.status, body=answer.body
        )
        self._keep(batch, decision)
        batch.answered.add(to.command_id)
        value = self._value(derived_id("answer", to.command_id), event.time, decision)
        self._send(batch, BY_NAME[f"answers.{self.stage.service}"], key.encode(), value, traced)

    def _keep(self, batch: _Batch, answer: Answered) -> None:
        blob = answer.model_dump_json().encode()
        batch.commit.answers[answer.command_id] = self._codec.answer(self.stage, blob, self._tag, answer.command_id)

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
        headers: Headers = (),
    ) -> None:
        meta, said, told = batch.commit.meta, batch.said, value or b""
        target = partition_of(key, self.partitions) if key else self.partition
        mark = _sent_mark(topic.name, target)
        meta["outbox"] = number = meta["outbox"] + 1
        meta[mark] = of_edge = self._number(batch, mark) + 1
        said[mark] = said.get(mark, 0) + 1
        batch.digest.update(b"%d:%b" % (len(told), told))
        if number > batch.sent:
            edge = (self._edge, (NUMBER_HEADER, b"%d" % of_edge))
            batch.commit.outbox.append(Outgoing(number, topic.name, target, key, value, (*headers, *edge)))

    # --- commit -----------------------------------------------------------------------------------------------------

    async def _commit(self, batch: _Batch, entry: Entry) -> None:
        number = batch.commit.meta["outbox"] - sum(batch.said.values())
        batch.commit.outbox.insert(0, self._told(number, entry))
        await self._write(batch)
        self._sent_noted = entry.sent
        if batch.said:
            self._said_last = batch.commit.meta["outbox"]

    async def _write(self, batch: _Batch) -> None:
        encode, stage, at = self._codec.encode, self.stage, self._tag
        commit = batch.commit
        commit.states = {key: encode(stage, batch.states[key], at, key) for key in batch.dirty_states}
        commit.rows = {
            key: {row_id: None if row is None else encode(stage, row, at, key, row_id) for row_id, row in rows.items()}
            for key, rows in batch.dirty_rows.items()
        }
        # The positions alone would not show an older copy of Redis to a batch of a topic that was quiet since.
        commit.positions["commits"] = (self.commits, commit.meta["commits"])
        verdict = await self._patiently(lambda: self._store.commit(commit))
        if verdict is Verdict.FENCED:
            raise Fenced(self.name)
        self._meta.update(commit.meta)
        self._meta.update({name: new for name, (_, new) in commit.positions.items()})
        for key, blob in commit.states.items():
            self._states.put(key, batch.states[key], len(blob))

    async def _patiently(self, attempt: Callable[[], Awaitable[Any]]) -> Any:
        """Repeat what passes (a lost connection, a server that is loading or whose disk is full) within a limit.

        Another cell's rebuild takes as long as it takes; it may wait for this one to be let go. Errors: GivenUp then.
        """
        waited, delay = 0.0, 0.02
        while True:
            try:
                return await attempt()
            except Exception as error:
                if not passes(error):
                    raise
                if self.let_go:
                    raise GivenUp(self.name) from error
                if waited >= PATIENCE_SECONDS and not isinstance(error, Rebuilding):
                    raise
                log.warning("waiting for the store", extra={"cell": self.name, "error": _named(error)})
                await self._pause(delay)
                waited, delay = waited + delay, min(1.0, delay * 2)


def _named(error: Exception) -> str:
    """What is the matter, in a word: the type, or the code of a refusal without one. The rest may say anything."""
    return str(error).partition(" ")[0] if type(error) is ResponseError else type(error).__name__


DUPLICATES = "duplicates"
"""The meta field that counts records dropped since their edge's number had been seen."""
_KNOWN = "known:"
"""Meta fields `known:<program>`: how many versions of it were known at the last commit."""


def _mark(program_id: str) -> str:
    """The meta field that says up to which version the cell has folded a program."""
    return f"program:{program_id}"


@cache
def _edge_mark(edge: bytes, topic: str) -> str:
    """The meta field that says which number of an edge's records on a topic came last."""
    return f"edge:{edge.decode()}:{topic}"


@cache
def _sent_mark(topic: str, partition: int) -> str:
    """The meta field that says how many records the cell has said to a topic's partition."""
    return f"sent:{topic}:{partition}"


def _published(programs: Programs, program_id: str, version: int) -> ProgramPublished:
    since = next(since for since, program in programs.versions(program_id) if program.version == version)
    document = programs.version(program_id, version).as_document()
    return ProgramPublished(program_id=program_id, version=version, effective_at=since, document=document)


def _as_event(published: ProgramPublished) -> Event:
    """A published version as an event to step with."""
    event_id = derived_id("published", published.program_id, published.version)
    return Event(event_id, "/attribution", published.effective_at, published)


def _events_of(taken: Taken) -> list[tuple[str, Event]]:
    return [(what.key, what.event) for _, what in taken if isinstance(what, border.Folded)]


@cache
def _is_commanded(kind: type[Payload]) -> bool:
    return "command_id" in kind.model_fields


def _command_of(event: Event) -> str | None:
    """The id of the command that the event is, or is on behalf of."""
    return event.data.command_id if _is_commanded(type(event.data)) else None  # type: ignore[attr-defined]


def _without_edge(headers: Headers) -> Headers:
    return tuple((name, value) for name, value in headers if name not in (EDGE_HEADER, NUMBER_HEADER))
