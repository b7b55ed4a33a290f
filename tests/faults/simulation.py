"""The whole system in one process, with every kind of fault at once, and all that happens decided by one seed.

The stages, the loop and the recovery are the real ones, over a log and memories made of dictionaries. Everything that
waits in a real process (a call of the store, a read of the log, a send, a pause) gives way here to the others, and the
seed draws who goes on: an owner may die or freeze at each such place, that is at every named point between two steps.
"""

import random
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from itertools import count, groupby
from types import coroutine
from typing import Any

from schemas.topics import BY_NAME, JOURNALS, PROFILES, PROGRAMS
from services.runtime import journal, recovery
from services.runtime.cache import Cache
from services.runtime.cell import EDGE_HEADER, Cell, GivenUp, Superseded
from services.runtime.memory import MemoryStore
from services.runtime.reader import Rebuilding
from services.runtime.recovery import MemoryLogReader
from services.runtime.simulate import World
from services.runtime.stage import Record, Stage
from services.runtime.store import TRANSIENT, Commit, Fenced, Moment, Outgoing, Verdict

Name = tuple[str, int]
"""A cell: stage and partition."""
UNSENT_BATCHES = 4
TURNS = 100_000
"""More than any drain takes. Whoever needs so many waits for something that never comes."""


@coroutine
def _turn(parked: bool = False) -> Generator[bool, None, None]:
    """Let the others go on. `parked`: until somebody wakes the owner."""
    yield parked


class _Link:
    """An owner's way to its cell's memory, whichever that is by now. Calls and replies get lost on it."""

    def __init__(self, world: "FaultyWorld", owner: "Owner") -> None:
        self._world, self._owner = world, owner

    @property
    def _store(self) -> MemoryStore:
        return self._world.stores[self._owner.name]

    async def _call(self, call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        await _turn()
        self._world.perhaps_cut()
        reply = await call()
        await _turn()
        self._world.perhaps_cut()
        return reply

    async def open(self, *arguments: Any) -> Any:
        async def opened() -> Any:
            self._owner.memory = self._store
            return await self._store.open(*arguments)

        return await self._call(opened)

    async def empty(self, *arguments: Any) -> Any:
        return await self._call(lambda: self._store.empty(*arguments))

    async def load(self, *arguments: Any) -> Any:
        return await self._call(lambda: self._store.load(*arguments))

    async def load_rows(self, *arguments: Any) -> Any:
        return await self._call(lambda: self._store.load_rows(*arguments))

    async def peek(self, stage: str, partition: int, key: str) -> bytes | None:
        found: bytes | None = await self._call(lambda: self._store.peek(stage, partition, key))
        return found

    async def scan(self, at: Moment) -> AsyncIterator[Mapping[str, bytes]]:
        async for states in self._store.scan(at):
            await _turn()
            yield states

    async def commit(self, commit: Commit) -> Verdict:
        async def committed() -> Verdict:
            verdict = await self._store.commit(commit)
            if verdict is Verdict.APPLIED:
                self._world.writers[self._owner.name], self._owner.memory = self._owner, self._store
            elif verdict is Verdict.FENCED:  # asked here: until the reply is there the memory may change again
                assert self._world.has_reason_to_fence(self._owner)
            return verdict

        verdict: Verdict = await self._call(committed)
        return verdict

    async def whole(self, *arguments: Any) -> Any:
        return await self._call(lambda: self._store.whole(*arguments))

    async def trim(self, *arguments: Any) -> None:
        await self._call(lambda: self._store.trim(*arguments))


class _Reader(MemoryLogReader):
    async def take(self, topic: str, upto: int) -> list[Record]:
        await _turn()
        return await super().take(topic, upto)


class _Task:
    """Something under way. `owner`: whose it is, if anybody's."""

    def __init__(self, work: Coroutine[Any, Any, None], owner: "Owner | None" = None) -> None:
        self.work, self.owner, self.parked = work, owner, False


class Owner:
    """One that has taken a cell over, folds its batches and sends what they say, as the worker does."""

    def __init__(self, world: "FaultyWorld", name: Name, process: int) -> None:
        stage, partition = name
        self.world, self.name, self.process = world, name, process
        self.cell = Cell(
            world.stages[stage],
            partition,
            world.partitions,
            _Link(world, self),  # type: ignore[arg-type]  # a store's calls are all there
            lambda: world._feeds[process].programs,
            world.stages,
            world.codec,
            pause=lambda seconds: _turn(),  # type: ignore[arg-type,return-value]
            owner=f"{next(world.owner_ids):032x}",
            cache=Cache(process % 2),  # of every other process: nothing, so that it reads what it has written
        )
        self.has_news = world.stages[stage].repriced is not None
        self.closing = self.is_open = self.has_ended = False
        self.memory: MemoryStore | None = None
        """The one that it has opened, or committed to last."""
        self.unsent: deque[list[Outgoing]] = deque()
        self.tasks = [_Task(self._fold_all(), self), _Task(self._send_all(), self)]

    async def _fold_all(self) -> None:
        try:
            left = await recovery.opened(self.cell, _Reader(self.world.log, self.name[1]), self._tell)
            assert not self.cell.said_differently
            await self._send(left)
            self.is_open = True
            while not self.closing:
                await _turn()
                outgoing = await self._work()
                while len(self.unsent) >= UNSENT_BATCHES:
                    await _turn()
                if outgoing is None:
                    await _turn(parked=not self.closing)
                elif outgoing:
                    self.unsent.append(outgoing)
                    self.world.wake(self)
        except GivenUp:
            pass
        except Superseded:
            self.world.die(self)
        except Fenced:
            if not self.world.has_lost(self):
                self.world.die(self)  # by another owner: it ends at once
        self.has_ended = True
        self.world.wake(self)

    def close(self) -> None:
        """Finish the batch in hand, send what it decided, and let go."""
        self.closing = self.cell.let_go = True
        self.world.wake(self)

    async def _work(self) -> list[Outgoing] | None:
        """One batch's outbox, or None where there is nothing to do."""
        rng, partition = self.world.rng, self.name[1]
        topics = [
            topic.name
            for topic in self.cell.stage.reads
            if self.cell.position(topic.name) < len(self.world.log[topic.name, partition])
        ]
        topics += [PROGRAMS.name] * self.has_news
        if not topics:
            return await self.cell.rest() or None if rng.random() < 0.5 else None
        topic = rng.choice(topics)
        if topic == PROGRAMS.name:
            self.has_news = False
            return await self.cell.learn()
        start = max(0, self.cell.position(topic) - rng.choice((0, 0, 1, 3)))  # as when fetched for another stage
        return await self.cell.fold(topic, self.world.log[topic, partition][start : start + rng.choice((4, 6, 50))])

    async def _send_all(self) -> None:
        while True:
            while self.unsent:
                try:
                    await self._send(self.unsent[0])
                except Superseded:
                    return self.world.die(self)
                self.unsent.popleft()
                self.world.wake(self)  # it may note that all was sent
            if self.has_ended:
                return self.world.die(self)
            await _turn(parked=True)

    async def _send(self, outgoing: Sequence[Outgoing]) -> None:
        """Send and trim; by a producer that fails, everything twice."""
        if not outgoing:
            return
        own = JOURNALS[self.name[0]].name
        entries = [journal.decoded(out.value) for out in outgoing if out.topic == own]
        while True:
            for part in self._parts(outgoing):
                await _turn()
                assert part[0].topic == own or self.world.counts(own, self.name[1], entries), "said before it was told"
                start = self.world.send(part)
                await _turn()
                if part[0].topic == own:
                    reader = _Reader(self.world.log, self.name[1])
                    await recovery.confirm(self.cell, start, len(part), lambda: nullcontext(reader))  # noqa: B023
            if not self.world.strikes(SENT_TWICE):
                break
        with suppress(GivenUp):  # the next owner sends it again
            await self.cell.trim(outgoing)

    async def _tell(self, outgoing: Sequence[Outgoing]) -> None:
        await _turn()
        self.world.send(outgoing)
        await _turn()

    def _parts(self, outgoing: Sequence[Outgoing]) -> Iterator[Sequence[Outgoing]]:
        """Journal entries first, then in order per partition, in pieces."""
        rng, own = self.world.rng, JOURNALS[self.name[0]].name
        groups = [list(group) for _, group in groupby(sorted(outgoing, key=_target), _target)]
        rng.shuffle(groups)
        for group in sorted(groups, key=lambda group: group[0].topic != own):
            cut = rng.randint(0, len(group))
            yield from filter(None, (group[:cut], group[cut:]))


_JOURNALS = {topic.name for topic in JOURNALS.values()}


def _is_numbered(records: Sequence[Record]) -> bool:
    return any(name == EDGE_HEADER for record in records for name, _ in record.headers)


def _target(out: Outgoing) -> tuple[str, int]:
    return out.topic, out.partition


class _Journal:
    """What a cell's journal tells. `told`: the digest of each commit's first entry that counts."""

    def __init__(self) -> None:
        self._succession, self.told = journal.Succession(), dict[int, int]()

    def append(self, record: Record) -> None:
        entry = journal.decoded(record.value)
        if self._succession.counts(entry) and not entry.is_claim:
            self.told.setdefault(entry.number, entry.digest)


class FaultyWorld(World):
    """A world whose owners, links and memories fail while it runs, `faults` times in all.

    `kinds`: of KINDS, what may happen; None: the seed draws it.
    """

    def __init__(
        self,
        stages: Sequence[Stage[Any, Any]],
        *,
        partitions: int,
        seed: int,
        faults: int,
        kinds: Sequence[str] | None = None,
    ) -> None:
        super().__init__(stages, partitions=partitions, seed=seed)
        self.rng = random.Random(seed)
        self.owner_ids = count(1)
        self.faults = 0
        self.happened: list[str] = []
        self.writers: dict[Name, Owner] = {}
        self._intended = faults
        self._tasks: list[_Task] = []
        self._now: _Task | None = None
        self._owners: dict[Name, Owner] = {}
        self._former: list[Owner] = []
        self._frozen: list[Owner] = []
        self._moments: list[dict[Name, MemoryStore]] = []
        self._journals: defaultdict[tuple[str, int], _Journal] = defaultdict(_Journal)
        self._readers: dict[tuple[str, int], list[Name]] = {}
        for stage, partition in self.stores:
            for topic in self.stages[stage].reads:
                self._readers.setdefault((topic.name, partition), []).append((stage, partition))
        drawn = self.rng.sample(list(KINDS), self.rng.randint(1, len(KINDS)))
        self._kinds = drawn if kinds is None else list(kinds)
        self._often = self.rng.choice((0.005, 0.02, 0.1))

    # --- what the loop does ----------------------------------------------------------------------------------------

    def append(self, topic: str, partition: int, *arguments: Any, **more: Any) -> None:
        super().append(topic, partition, *arguments, **more)
        if topic == PROGRAMS.name:
            for process in range(self.partitions):
                self._tasks.append(_Task(self._heard(process)))
        if topic in _JOURNALS:
            self._journals[topic, partition].append(self.log[topic, partition][-1])
        for name in self._readers.get((topic, partition), ()):
            self._rouse(name)

    async def _heard(self, process: int) -> None:
        await _turn()
        self.hear(process)

    def hear(self, process: int) -> None:
        """Let a process know the program versions that were published."""
        self._feeds[process].read()
        for owner in [*self._owners.values(), *self._former]:
            if owner.process == process and owner.cell.stage.repriced:
                owner.has_news = True
                self.wake(owner)

    def counts(self, topic: str, partition: int, entries: Sequence[journal.Entry]) -> bool:
        """Whether a journal tells of commits, in entries that nobody claimed the cell before."""
        told = self._journals[topic, partition].told
        return all(told.get(entry.number) == entry.digest for entry in entries)

    def send(self, outgoing: Sequence[Outgoing]) -> int:
        """Answers the offset of the first, where all are for one partition."""
        start = len(self.log[_target(outgoing[0])])
        self._send(outgoing)
        return start

    def wake(self, owner: Owner) -> None:
        if owner in self._frozen:
            return
        for task in owner.tasks:
            if task.parked:
                task.parked = False
                self._tasks.append(task)

    def _rouse(self, name: Name) -> None:
        """Let whoever owns a cell look for work; one that nobody owns is opened."""
        if name not in self._owners:
            self._open(name)
        for owner in [self._owners[name], *(each for each in self._former if each.name == name)]:
            self.wake(owner)

    def _open(self, name: Name) -> None:
        owner = self._owners[name] = Owner(self, name, self.rng.randrange(self.partitions))
        self._tasks += owner.tasks

    def die(self, owner: Owner) -> None:
        """The owner is gone where it is; a current one has a successor."""
        self._tasks = [task for task in self._tasks if task.owner is not owner]
        for task in owner.tasks:
            if task is not self._now:  # it may be the one that ends its owner
                task.work.close()
        owner.tasks = []
        if owner in self._frozen:
            self._frozen.remove(owner)
        if self._owners.get(owner.name) is owner:
            self._open(owner.name)
        elif owner in self._former:
            self._former.remove(owner)

    def has_lost(self, owner: Owner) -> bool:
        """Whether the memory lacks what a current owner has committed. See `keeper._OpenCell`."""
        store = self.stores[owner.name]
        epoch, commits = store.epoch, store.meta.get("commits", 0)
        lacks = epoch < owner.cell.epoch or (epoch == owner.cell.epoch and commits < owner.cell.commits)
        return self._owners.get(owner.name) is owner and lacks

    def has_reason_to_fence(self, owner: Owner) -> bool:
        """Another owner, a loss, or another memory: nobody is fenced by a commit of its own."""
        store = self.stores[owner.name]
        taken_over = store.epoch != owner.cell.epoch or self.writers.get(owner.name) is not owner
        return taken_over or self.has_lost(owner) or store is not owner.memory

    async def _looked(self) -> None:
        await _turn()
        self._look()

    def _look(self) -> bool:
        """The look at the memory that workers take every second. Answers whether one of them lets go of its cell."""
        fenced = [
            each for each in self._owners.values() if each.is_open and self.stores[each.name].epoch > each.cell.epoch
        ]
        for owner in fenced:
            self.die(owner)
        lost = [owner for owner in self._owners.values() if owner.is_open and self.has_lost(owner)]
        for owner in lost:
            owner.close()
        for owner in self._owners.values():
            if owner.is_open and not self.has_lost(owner):
                with suppress(StopIteration):  # a memory made of dictionaries waits for nothing
                    self.stores[owner.name].whole(owner.cell.epoch, owner.cell.commits).send(None)
        return bool(lost or fenced)

    async def _peek(self, stage: str, partition: int, key: str) -> bytes | None:
        if not self.stores[stage, partition].is_ready:
            self._rouse((stage, partition))
            self._tasks.append(_Task(self._looked()))
            raise Rebuilding(f"{stage} {partition}")
        return await super()._peek(stage, partition, key)

    # --- running ----------------------------------------------------------------------------------------------------

    def run(self) -> "FaultyWorld":
        """Let everything come to rest, in an order drawn from the seed, while things fail."""
        self.faults = share = self.rng.randint(0, self._intended)
        turns = 0
        while self._tasks or self._frozen or self._look():
            turns += 1
            assert turns < TURNS, "somebody waits for what never comes"
            if self._kinds and self.faults and self.rng.random() < self._often:
                self._harm()
            if not self._tasks:
                self.thaw()
                continue
            self._advance()
        self._former.clear()  # nothing wakes them any more but what also wakes their successors
        self.feed.read()
        self._intended -= share - self.faults
        return self

    def _advance(self) -> None:
        """Let somebody go on up to the next place where it gives way."""
        at = self.rng.randrange(len(self._tasks))
        task = self._tasks[at]
        self._tasks[at] = self._tasks[-1]
        self._tasks.pop()
        self._now = task
        try:
            task.parked = task.work.send(None) is True
        except StopIteration:
            if task.owner and task in task.owner.tasks:
                task.owner.tasks.remove(task)
            return
        if not task.parked and (task.owner is None or task in task.owner.tasks):
            self._tasks.append(task)

    # --- faults -----------------------------------------------------------------------------------------------------

    def strikes(self, kind: str) -> bool:
        """Whether a fault of this kind happens here and now."""
        if kind not in self._kinds or not self.faults or self.rng.random() > 0.05:
            return False
        self._note(kind)
        return True

    def perhaps_cut(self) -> None:
        if self.strikes(LINK_CUT):
            raise TRANSIENT[0]("cut")

    def _note(self, kind: str) -> None:
        self.faults -= 1
        self.happened.append(kind)

    def _harm(self) -> None:
        kind = self.rng.choice(self._kinds)
        if (harm := KINDS[kind]) is not None:
            self._note(kind)
            harm(self)

    def _anybody(self) -> Owner | None:
        owners = list(self._owners.values())
        return self.rng.choice(owners) if owners else None

    def kill(self) -> None:
        """One owner, or all of a process."""
        if victim := self._anybody():
            whole = self.rng.random() < 0.2
            for owner in list(self._owners.values()) if whole else [victim]:
                if owner.process == victim.process:
                    self.die(owner)
            if whole:
                self._feeds[victim.process].read()

    def freeze(self) -> None:
        """An owner stops where it is, another one takes over, and some time later the first one goes on."""
        if not (victim := self._anybody()):
            return
        self._tasks = [task for task in self._tasks if task.owner is not victim]
        for task in victim.tasks:
            task.parked = True
        self._former.append(victim)
        self._frozen.append(victim)
        self._open(victim.name)

    def thaw(self) -> None:
        """A frozen owner goes on, as if nothing had happened."""
        if self._frozen:
            self.wake(self._frozen.pop(self.rng.randrange(len(self._frozen))))

    def keep_a_copy(self) -> None:
        self._moments.append({name: store.copied() for name, store in self.stores.items()})

    def empty(self) -> None:
        self._lose(self._some(), {})

    def restore(self) -> None:
        """Memory is as it was at some moment. All of a cell is on one server."""
        if self._moments:
            self._lose(self._some(), self._moments.pop(self.rng.randrange(len(self._moments))))

    def lapse(self) -> None:
        """Memory is as it was at some moment, and soon what it was before: somebody put the wrong copy in its place."""
        if self._moments:
            earlier, names = self.rng.choice(self._moments), self._some()
            former = {name: self.stores[name] for name in names}
            self._lose(names, {name: earlier[name].copied() for name in names})
            self._tasks.append(_Task(self._put_right(former)))

    async def _put_right(self, former: Mapping[Name, MemoryStore]) -> None:
        for _ in range(self.rng.choice((1, 10, 100))):
            await _turn()
        self._lose(list(former), {name: store.copied() for name, store in former.items()})

    def _some(self) -> list[Name]:
        names = list(self.stores)
        return names if self.rng.random() < 0.3 else self.rng.sample(names, self.rng.randint(1, 6))

    def _lose(self, names: Sequence[Name], earlier: Mapping[Name, MemoryStore]) -> None:
        """Sometimes the owners go down with it."""
        together = self.rng.random() < 0.3
        for name in [each for each in names if each in self._owners]:
            self.stores[name] = earlier.get(name) or MemoryStore(self._peek)
            if together:
                self.die(self._owners[name])
        self._tasks.append(_Task(self._looked()))

    def send_again(self) -> None:
        """Records that a producer sent once come once more, late and in any order."""
        numbered = [self.log[where] for where in self._readers if _is_numbered(self.log[where][-1:])]
        for log in self.rng.choices(numbered, k=self.rng.choice((1, 10, 60))) if numbered else ():
            self._again([self.rng.choice(log)])

    def repeat_inputs(self) -> None:
        """The platform says things once more, some of them where they do not belong."""
        if given := [log for (topic, _), log in self.log.items() if log and topic in REPEATABLE]:
            log = self.rng.choice(given)
            start = self.rng.randrange(len(log))
            self._again(log[start : start + self.rng.choice((1, 3, 10))], misplaced=self.rng.random() < 0.3)

    def _again(self, records: Sequence[Record], misplaced: bool = False) -> None:
        for each in records:
            where = self.rng.randrange(self.partitions) if misplaced else each.partition
            self.append(each.topic, where, each.key, each.value, () if misplaced else each.headers)


DEATH, FREEZE, THAW = "owners die", "owners freeze", "frozen owners go on"
COPY, EMPTIED, RESTORED = "memory is copied", "memory is emptied", "memory goes back to a copy"
LAPSED = "memory goes back to a copy and forth again"
SENT_AGAIN, REPEATED = "records are sent again", "inputs are repeated"
LINK_CUT, SENT_TWICE = "calls and replies of the store get lost", "a producer fails and sends everything twice"
KINDS: dict[str, Callable[[FaultyWorld], None] | None] = {
    DEATH: FaultyWorld.kill,
    FREEZE: FaultyWorld.freeze,
    THAW: FaultyWorld.thaw,
    COPY: FaultyWorld.keep_a_copy,
    EMPTIED: FaultyWorld.empty,
    RESTORED: FaultyWorld.restore,
    LAPSED: FaultyWorld.lapse,
    SENT_AGAIN: FaultyWorld.send_again,
    REPEATED: FaultyWorld.repeat_inputs,
    LINK_CUT: None,
    SENT_TWICE: None,
}
"""What goes wrong. None: it does so where the call or the send is."""
REPEATABLE = {
    topic.name
    for topic in BY_NAME.values()
    if (topic.from_outside and topic is not PROFILES) or topic.name.startswith("commands")
}
"""Topics whose inputs may be repeated. Of a profile the last record is the one that counts."""
