"""The whole system in one process: the real stages and the real loop over a log and a memory made of dictionaries.

For tests of rules, of interleavings and of the loop itself. Which cell goes next, how many records it takes, what is
sent twice and who dies is drawn from a seed, so that a failing run can be repeated.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from schemas.commands import Answered
from schemas.events import Event, ProgramPublished, event_json, parse_event
from schemas.ids import partition_of
from schemas.programs import Programs
from schemas.topics import PROGRAMS, TOPIC_OF
from services.runtime import recovery
from services.runtime.cell import Cell
from services.runtime.codec import Codec
from services.runtime.memory import MemoryStore
from services.runtime.recovery import MemoryLogReader
from services.runtime.stage import Record, Row, Stage, State
from services.runtime.store import Outgoing, tag


class _Feed:
    """What one process knows of the program versions. See `programs.ProgramsFeed`."""

    def __init__(self, log: Mapping[tuple[str, int], list[Record]], partitions: int) -> None:
        self.programs = Programs()
        self._log, self._read = log, [0] * partitions

    @property
    def is_behind(self) -> bool:
        return any(read < len(self._log[PROGRAMS.name, number]) for number, read in enumerate(self._read))

    def read(self) -> None:
        for number, read in enumerate(self._read):
            log = self._log[PROGRAMS.name, number]
            for record in log[read:]:
                data = parse_event(record.value).data
                if isinstance(data, ProgramPublished):
                    self.programs = self.programs.with_version(data)
            self._read[number] = len(log)

    async def catch_up(self) -> None:
        self.read()


class World:
    """Every cell of the given stages over a log in memory.

    There are as many processes as partitions; each hears of program versions at its own time. `programs` is what the
    APIs know: all that was published when `run` ended. `crashes`: the share of turns in which a cell's owner dies at a
    random step; what it had sent or not is then sent again by the next one, perhaps in another process. `losses`: the
    share of turns in which the cell's memory is emptied, or goes back to an earlier copy of itself.
    """

    def __init__(
        self,
        stages: Sequence[Stage[Any, Any]],
        *,
        partitions: int = 2,
        seed: int = 0,
        crashes: float = 0.0,
        losses: float = 0.0,
    ) -> None:
        self.stages = {stage.name: stage for stage in stages}
        self.partitions = partitions
        self.codec = Codec({"world": "a world in memory keeps its secrets to itself"})
        self.log: dict[tuple[str, int], list[Record]] = defaultdict(list)
        self.stores = {(name, number): MemoryStore(self._peek) for name in self.stages for number in range(partitions)}
        self._rng, self._crashes, self._losses = random.Random(seed), crashes, losses  # noqa: S311 (a seed to repeat)
        self._copies: dict[tuple[str, int], MemoryStore] = {}
        self._cells: dict[tuple[str, int], Cell] = {}
        self._feeds = [_Feed(self.log, partitions) for _ in range(partitions)]
        self.feed = _Feed(self.log, partitions)
        self._process_of = {name: name[1] for name in self.stores}
        self._to_learn: set[tuple[str, int]] = set()

    @property
    def programs(self) -> Programs:
        return self.feed.programs

    # --- the log ----------------------------------------------------------------------------------------------------

    def publish(self, *events: Event, partition: int | None = None, key: bytes | None = None) -> None:
        """Write events as their producer would; a wrong `partition` or `key` on purpose."""
        for event in events:
            topic = TOPIC_OF[type(event.data)]
            own = topic.key(event.data)
            where = partition_of(own, self.partitions) if partition is None else partition
            self.append(topic.name, where, own.encode() if key is None else key, event_json(event))

    def append(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: tuple[tuple[str, bytes], ...] = (),
        appended_at: int = 4_000_000_000_000_000,
    ) -> None:
        log = self.log[topic, partition]
        log.append(Record(topic, partition, len(log), key, value, appended_at, headers))

    def events(self, topic: str) -> list[Event]:
        """The events on a topic, partition by partition, each once: a repeat under the same id is a resend."""
        seen: dict[str, Event] = {}
        for number in range(self.partitions):
            for record in self.log[topic, number]:
                event = parse_event(record.value)
                seen.setdefault(event.id, event)
        return list(seen.values())

    def abandon(self) -> None:
        """Every owner is gone, wherever it was; the next turn of a cell opens it anew."""
        self._cells.clear()

    # --- running ----------------------------------------------------------------------------------------------------

    def run(self) -> "World":
        """Let every cell read to the end of its topics, in an order drawn from the seed."""
        asyncio.run(self._run())
        return self

    async def _run(self) -> None:
        while work := await self._work():
            what = self._rng.choice(work)
            if isinstance(what, int):
                self._hear(what)
                continue
            (stage, partition), topic = what
            cell = await self._cell(stage, partition)
            if topic == PROGRAMS.name:
                self._to_learn.discard((stage, partition))
                outgoing = await cell.learn()
            else:
                position = cell.position(topic)
                records = self.log[topic, partition][position : position + self._rng.choice((1, 2, 5, 50))]
                outgoing = await cell.fold(topic, records)
            if self._rng.random() < self._crashes:
                self._send(outgoing[: self._rng.randint(0, len(outgoing))])
                del self._cells[stage, partition]  # died before the outbox was trimmed
                self._process_of[stage, partition] = self._rng.randrange(self.partitions)
                if self.stages[stage].repriced:
                    self._to_learn.add((stage, partition))
                continue
            self._send(outgoing)
            await cell.trim(outgoing)
            self._perhaps_lose((stage, partition))
        if self._losses:
            for stage, partition in self.stores:
                await self._cell(stage, partition)
            if await self._work():  # what a late owner has sent
                await self._run()
        self.feed.read()

    def _perhaps_lose(self, name: tuple[str, int]) -> None:
        """Some memory of a cell is lost; its owner notices when it is fenced, at the latest, and opens it anew."""
        drawn = self._rng.random() if self._losses else 1.0
        if drawn < self._losses / 2:
            self.lose(name, self._copies.pop(name, None))
        elif drawn < self._losses:
            self._copies[name] = self.stores[name].copied()

    def lose(self, name: tuple[str, int], copied: MemoryStore | None = None) -> None:
        """Put an earlier copy of a cell's memory in its place, or nothing at all."""
        self.stores[name] = copied or MemoryStore(self._peek)
        self._cells.pop(name, None)

    async def _peek(self, stage: str, partition: int, key: str) -> bytes | None:
        if not self.stores[stage, partition].is_ready:
            await self._cell(stage, partition)  # a lookup waits until an owner has found the cell whole
        return self.stores[stage, partition].states.get(key)

    async def _work(self) -> list[int | tuple[tuple[str, int], str]]:
        """What can be done next: a process hears of versions, a cell folds those or records of a topic."""
        hear = [number for number, feed in enumerate(self._feeds) if feed.is_behind]
        fold = [(name, topic) for name in self.stores for topic in await self._unread(name)]
        return [*hear, *((name, PROGRAMS.name) for name in sorted(self._to_learn)), *fold]

    def _hear(self, process: int) -> None:
        self._feeds[process].read()
        self._to_learn |= {
            name for name, own in self._process_of.items() if own == process and self.stages[name[0]].repriced
        }

    async def _unread(self, name: tuple[str, int]) -> list[str]:
        stage, partition = name
        if self.stores[name].outbox:
            await self._cell(*name)  # an owner that died left something to send
        meta = self.stores[name].meta
        return [
            topic.name
            for topic in self.stages[stage].reads
            if meta.get(f"position:{topic.name}", 0) < len(self.log[topic.name, partition])
        ]

    async def _cell(self, stage: str, partition: int) -> Cell:
        if (stage, partition) not in self._cells:
            store = self.stores[stage, partition]
            cell = Cell(
                self.stages[stage],
                partition,
                self.partitions,
                store,
                lambda: self._feeds[self._process_of[stage, partition]].programs,
                self.stages,
                self.codec,
                pause=self._pause,
            )
            self._cells[stage, partition] = cell
            reader = MemoryLogReader(self.log, partition)
            left = await recovery.opened(cell, reader, reader.tell)
            if self.stages[stage].repriced:
                self._to_learn.add((stage, partition))
            self._send(left)
            await cell.trim(left)
        return self._cells[stage, partition]

    async def _pause(self, seconds: float) -> None:
        for process in range(self.partitions):
            self._hear(process)

    def _send(self, outgoing: Sequence[Outgoing]) -> None:
        for out in outgoing:
            self.append(out.topic, out.partition, out.key, out.value, out.headers)


class MemoryReader:
    """The APIs' view of a world. See `reader.Reader`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def _store(self, stage: Stage[Any, Any], key: str) -> MemoryStore:
        return self._world.stores[stage.name, partition_of(key, self._world.partitions)]

    def _stores(self, stage: Stage[Any, Any]) -> list[tuple[str, MemoryStore]]:
        numbers = range(self._world.partitions)
        return [(tag(stage.name, number), self._world.stores[stage.name, number]) for number in numbers]

    def _tag(self, stage: Stage[Any, Any], key: str) -> str:
        return tag(stage.name, partition_of(key, self._world.partitions))

    async def ready(self, stages: Sequence[Stage[Any, Any]]) -> bool:
        return True

    async def state(self, stage: Stage[State, Row], key: str) -> State:
        blob = self._store(stage, key).states.get(key)
        return self._decode(blob, type(stage.empty), self._tag(stage, key), key) if blob else stage.empty

    async def states(self, stage: Stage[State, Row], keys: Sequence[str]) -> list[State]:
        return [await self.state(stage, key) for key in keys]

    async def row(self, stage: Stage[State, Row], key: str, row_id: str) -> Row | None:
        return (await self.rows(stage, key)).get(row_id)

    async def row_each(self, stage: Stage[State, Row], places: Sequence[tuple[str, str]]) -> list[Row | None]:
        return [await self.row(stage, key, row_id) for key, row_id in places]

    async def rows_each(self, stage: Stage[State, Row], keys: Sequence[str]) -> list[dict[str, Row]]:
        return [await self.rows(stage, key) for key in keys]

    async def rows(self, stage: Stage[State, Row], key: str) -> dict[str, Row]:
        return self._rows(stage, key, self._tag(stage, key), self._store(stage, key))

    async def rows_everywhere(self, stage: Stage[State, Row], key: str) -> list[dict[str, Row]]:
        return [self._rows(stage, key, cell, store) for cell, store in self._stores(stage)]

    async def find(self, stage: Stage[Any, Any], name: str) -> str | None:
        return next((store.find[name] for _, store in self._stores(stage) if name in store.find), None)

    async def keys_of(self, stage: Stage[Any, Any], prefix: str) -> set[str]:
        names = (each for _, store in self._stores(stage) for each in store.find.items())
        return {key for name, key in names if name.startswith(prefix)}

    async def answers(self, stages: Sequence[Stage[Any, Any]], command_ids: Sequence[str]) -> dict[str, Answered]:
        found = {}
        for stage in stages:
            for cell, store in self._stores(stage):
                for command_id in store.answers.keys() & set(command_ids):
                    plain = self._world.codec.plain(store.answers[command_id], cell, command_id)
                    found[command_id] = Answered.model_validate_json(plain)
        return found

    async def all_states(self, stage: Stage[State, Row]) -> AsyncIterator[tuple[str, State]]:
        for cell, store in self._stores(stage):
            for key, blob in store.states.items():
                yield key, self._decode(blob, type(stage.empty), cell, key)

    def _rows(self, stage: Stage[State, Row], key: str, cell: str, store: MemoryStore) -> dict[str, Row]:
        rows = store.rows.get(key, {})
        return {row_id: self._decode(blob, stage.row, cell, key, row_id) for row_id, blob in rows.items()}

    def _decode(self, blob: bytes, kind: Any, *place: str) -> Any:
        return self._world.codec.decode(blob, kind, *place)
