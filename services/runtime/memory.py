"""A cell's memory made of dictionaries: for the system in one process, and for folding the log beside Redis."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

from services.runtime.journal import Last
from services.runtime.store import Commit, Fenced, Loaded, Moment, Opened, Outgoing, Verdict

_RUNS = itertools.count(1)
_NOT_SAID, _CLOSED = -1, 0
Peek = Callable[[str, int, str], Awaitable[bytes | None]]
"""The committed state of a key, by stage, partition and key."""


class MemoryStore:
    """One cell's memory. Survives its owner, like Redis does. `peek`: the way to other cells' states, if any."""

    def __init__(self, peek: Peek | None = None) -> None:
        self._peek = peek
        self.epoch, self.token = 0, ""
        self.run, self._ready = next(_RUNS), _NOT_SAID
        self.meta: dict[str, int] = {}
        self.states: dict[str, bytes] = {}
        self.rows: dict[str, dict[str, bytes]] = {}
        self.find: dict[str, str] = {}
        self.answers: dict[str, bytes] = {}
        self.outbox: dict[int, Outgoing] = {}

    def copied(self) -> "MemoryStore":
        """As it is now, for going back to."""
        made = MemoryStore(self._peek)
        made.epoch, made.token = self.epoch, self.token
        made._ready = self._ready
        made.meta, made.states, made.outbox = dict(self.meta), dict(self.states), dict(self.outbox)
        made.rows = {key: dict(rows) for key, rows in self.rows.items()}
        made.find, made.answers = dict(self.find), dict(self.answers)
        return made

    async def open(self, last: Last = Last()) -> Opened:  # noqa: B008 (frozen)
        self.epoch = max(self.epoch, last.epoch) + 1
        commits, digest = self.meta.get("commits", 0), self.meta.get("digest", 0)
        if commits < last.number or (commits == last.number and digest != last.digest):
            self._ready = _CLOSED
        return Opened(self.epoch, dict(self.meta), tuple(out for _, out in sorted(self.outbox.items())))

    async def empty(self, epoch: int, commits: int) -> bool:
        if (epoch, commits) != (self.epoch, self.meta.get("commits", 0)):
            return False
        vars(self).update(vars(MemoryStore(self._peek)), epoch=epoch, run=self.run, _ready=_CLOSED)
        return True

    @property
    def is_ready(self) -> bool:
        """Whether the cell may be read: its owner has found it whole since this memory is there."""
        return self._ready == self.run

    async def whole(self, epoch: int, commits: int) -> bool:
        if epoch < self.epoch:
            raise Fenced
        is_whole = epoch == self.epoch and commits <= self.meta.get("commits", 0)
        if is_whole and self._ready != _CLOSED:
            self._ready = self.run
        return is_whole

    def _refuse_another(self, at: Moment) -> None:
        if (self.epoch, self.meta.get("commits", 0)) != at:
            raise Fenced

    async def load(
        self, keys: Sequence[str], rows: Sequence[tuple[str, str]], commands: Sequence[str], at: Moment
    ) -> Loaded:
        if keys or rows or commands:
            self._refuse_another(at)
        return Loaded(
            {key: self.states[key] for key in keys if key in self.states},
            {(key, row): self.rows[key][row] for key, row in rows if row in self.rows.get(key, {})},
            frozenset(command for command in commands if command in self.answers),
        )

    async def load_rows(self, key: str, at: Moment) -> Mapping[str, bytes]:
        self._refuse_another(at)
        return dict(self.rows.get(key, {}))

    async def peek(self, stage: str, partition: int, key: str) -> bytes | None:
        if self._peek is None:
            raise LookupError(f"{stage} is not at hand")
        return await self._peek(stage, partition, key)

    async def scan(self, at: Moment) -> AsyncIterator[Mapping[str, bytes]]:
        for key in sorted(self.states):
            self._refuse_another(at)
            yield {key: self.states[key]}

    async def commit(self, commit: Commit) -> Verdict:
        if commit.epoch != self.epoch:
            return Verdict.FENCED
        if commit.token == self.token:
            return Verdict.MINE_ALREADY
        if any(self.meta.get(name, 0) != expected for name, (expected, _) in commit.positions.items()):
            return Verdict.FENCED
        self.token = commit.token
        self._ready = self.run if commit.ready else self._ready
        self.meta |= {name: new for name, (_, new) in commit.positions.items()} | commit.meta
        self.states |= commit.states
        self.find |= commit.find
        self.answers |= commit.answers
        for key, rows in commit.rows.items():
            mine = self.rows.setdefault(key, {})
            for row_id, blob in rows.items():
                if blob is None:
                    mine.pop(row_id, None)
                else:
                    mine[row_id] = blob
        self.outbox |= {out.number: out for out in commit.outbox}
        return Verdict.APPLIED

    async def trim(self, epoch: int, upto: int) -> None:
        if epoch == self.epoch:
            for number in [number for number in self.outbox if number <= upto]:
                del self.outbox[number]
