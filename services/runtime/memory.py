"""A cell's memory made of dictionaries: for the system in one process, and for folding the log beside Redis."""

import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from services.runtime.journal import Last
from services.runtime.store import Commit, Loaded, Opened, Outgoing, Verdict

_RUNS = itertools.count(1)
Peek = Callable[[str, int, str], bytes | None]
"""The committed state of a key, by stage, partition and key."""


class MemoryStore:
    """One cell's memory. Survives its owner, like Redis does. `peek`: the way to other cells' states, if any."""

    def __init__(self, peek: Peek | None = None) -> None:
        self._peek = peek
        self.epoch, self.token = 0, ""
        self.run = self._opened_in = next(_RUNS)
        self._whole_in = 0
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
        made._opened_in, made._whole_in = self._opened_in, self._whole_in
        made.meta, made.states, made.outbox = dict(self.meta), dict(self.states), dict(self.outbox)
        made.rows = {key: dict(rows) for key, rows in self.rows.items()}
        made.find, made.answers = dict(self.find), dict(self.answers)
        return made

    async def open(self, last: Last = Last()) -> Opened:  # noqa: B008 (frozen)
        self.epoch = max(self.epoch, last.epoch) + 1
        self._opened_in = self.run
        self._whole_in = 0 if self.meta.get("commits", 0) < last.number else self.run
        return Opened(self.epoch, dict(self.meta), tuple(out for _, out in sorted(self.outbox.items())))

    async def empty(self, epoch: int, commits: int) -> bool:
        if (epoch, commits) != (self.epoch, self.meta.get("commits", 0)):
            return False
        vars(self).update(vars(MemoryStore(self._peek)), epoch=epoch, run=self.run, _opened_in=self._opened_in)
        return True

    @property
    def is_ready(self) -> bool:
        """Whether the cell may be read: its owner has found it whole since this memory is there."""
        return self._whole_in == self.run

    def whole(self, epoch: int) -> None:
        """See `RedisCellStore.whole`."""
        if epoch == self.epoch and self._whole_in:
            self._opened_in = self._whole_in = self.run

    async def load(self, keys: Sequence[str], rows: Sequence[tuple[str, str]], commands: Sequence[str]) -> Loaded:
        return Loaded(
            {key: self.states[key] for key in keys if key in self.states},
            {(key, row): self.rows[key][row] for key, row in rows if row in self.rows.get(key, {})},
            frozenset(command for command in commands if command in self.answers),
        )

    async def load_rows(self, key: str) -> Mapping[str, bytes]:
        return dict(self.rows.get(key, {}))

    async def peek(self, stage: str, partition: int, key: str) -> bytes | None:
        if self._peek is None:
            raise LookupError(f"{stage} is not at hand")
        return self._peek(stage, partition, key)

    async def scan(self) -> AsyncIterator[Mapping[str, bytes]]:
        for key in sorted(self.states):
            yield {key: self.states[key]}

    async def commit(self, commit: Commit) -> Verdict:
        if commit.epoch != self.epoch:
            return Verdict.FENCED
        if commit.token == self.token:
            return Verdict.MINE_ALREADY
        if any(self.meta.get(name, 0) != expected for name, (expected, _) in commit.positions.items()):
            return Verdict.FENCED
        self.token = commit.token
        self._whole_in = self._opened_in if commit.ready else self._whole_in
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
