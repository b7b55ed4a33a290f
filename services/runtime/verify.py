"""Comparing what Redis holds of a cell with a fresh fold of the log, while the cell's owner goes on.

Every piece of Redis is read together with the number of the cell's last commit; the fold beside it is led to exactly
that commit before the two are compared. So nothing has to stop, and a difference is one.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from services.runtime import recovery
from services.runtime.cell import Cell
from services.runtime.codec import SEALED, Codec, Unsealable
from services.runtime.journal import Diverged, Last
from services.runtime.memory import MemoryStore
from services.runtime.recovery import LogReader
from services.runtime.redis_reader import rows_keys
from services.runtime.store import tag

PIECE = 500
EVERYTHING_SENT = 2**62
OF_AN_OWNER = ("epoch", "ready", "sent", "token")
"""What a cell's meta says of its owner; the rest are facts."""
LATE_SECONDS = 10.0
AT_ONCE = "return {redis.call('HGET', KEYS[1], 'commits'), redis.call(ARGV[1], KEYS[2], unpack(ARGV, 2))}"


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that Redis holds otherwise than the log gives it. `live`, `log`: as JSON-like values, None: absent."""

    cell: str
    what: str
    key: str
    live: Any
    log: Any


class Verifier:
    """One cell of the live state, and a fold of its own beside it."""

    def __init__(self, redis: Any, reader: LogReader, cell_over: Callable[[MemoryStore], Cell], codec: Codec) -> None:
        self._redis, self._reader, self._store, self._codec = redis, reader, MemoryStore(), codec
        self._script, self._cell = redis.register_script(AT_ONCE), cell_over(self._store)
        self._stage, self._tag = self._cell.stage, tag(self._cell.stage.name, self._cell.partition)
        self.records = 0

    async def differences(self) -> AsyncIterator[Difference]:
        """Every difference. Errors: Diverged where the rules of this version do not give what was said."""
        kind = type(self._stage.empty)
        for name, mine, row in (
            ("state", self._store.states, kind),
            ("find", self._store.find, None),
            ("answers", self._store.answers, None),
        ):
            async for difference in self._hash(name, mine, row):
                yield difference
        async for difference in self._rows():
            yield difference
        live = {
            name.decode(): int(value)
            for name, value in _pairs(await self._at_once("HGETALL", "meta"))
            if name.decode() not in OF_AN_OWNER
        }
        folded = {name: value for name, value in self._store.meta.items() if name not in OF_AN_OWNER}
        for name in sorted({*live, *folded}):
            if live.get(name, 0) != folded.get(name, 0):
                yield self._difference("meta", name, live.get(name), folded.get(name))
        if self._cell.said_differently:
            yield self._difference("said", "commits with other contents", self._cell.said_differently, 0)

    async def _hash(self, name: str, mine: Mapping[str, Any], kind: Any) -> AsyncIterator[Difference]:
        """Compare one hash of the cell, in pieces; what only the log gives comes last."""
        seen: set[str] = set()
        cursor, first = b"0", True
        while cursor != b"0" or first:
            cursor, found = await self._at_once("HSCAN", name, cursor, "COUNT", PIECE)
            first = False
            for key, blob in ((key.decode(), blob) for key, blob in _pairs(found)):
                seen.add(key)
                if difference := self._compared(name, key, blob, mine.get(key), kind):
                    yield difference
        for key in [key for key in mine if key not in seen]:
            blob = await self._at_once("HGET", name, key)
            if difference := self._compared(name, key, blob, mine.get(key), kind):
                yield difference

    async def _rows(self) -> AsyncIterator[Difference]:
        prefix = f"{self._tag}:rows:"
        keys = {key.removeprefix(prefix) async for key in rows_keys(self._redis, self._tag)}
        for key in sorted(keys | {key for key, rows in self._store.rows.items() if rows}):
            live = {row.decode(): blob for row, blob in _pairs(await self._at_once("HGETALL", f"rows:{key}"))}
            folded = self._store.rows.get(key, {})
            for row_id in sorted({*live, *folded}):
                pair = live.get(row_id), folded.get(row_id)
                if not self._same(*pair, self._stage.row, key, row_id):
                    yield self._difference(f"rows of {key}", row_id, *(_shown(each, self._stage.row) for each in pair))

    async def _at_once(self, command: str, name: str, *arguments: Any) -> Any:
        """A reply of Redis, with the fold beside it led to the commit that the reply belongs to."""
        keys = [f"{self._tag}:meta", f"{self._tag}:{name}"]
        commits, reply = await self._script(keys=keys, args=[command, *arguments])
        await self._lead_to(int(commits or 0))
        return reply

    async def _lead_to(self, commits: int) -> None:
        if commits <= self._cell.commits and self._cell.epoch:
            return
        waited = 0.0
        while (await recovery.last_entry(self._reader, self._stage.name)).number < commits and waited < LATE_SECONDS:
            await asyncio.sleep(0.1)  # committed, and on its way to the log
            waited += 0.1
        await self._cell.open(Last(commits, 0, EVERYTHING_SENT))
        async for told in recovery.entries_after(self._cell, self._reader, commits):
            await self._cell.replay(told)
            self.records += sum(len(records) for _, records in told)
        if self._cell.commits < commits:
            raise Diverged(
                f"{self._cell.name} has committed {commits} batches, its journal ends at {self._cell.commits}"
            )

    def _compared(self, what: str, key: str, live: bytes | None, log: Any, kind: Any) -> Difference | None:
        folded = log.encode() if isinstance(log, str) else log
        if what == "answers" and live is not None:
            live = live.partition(b":")[2]
        if self._same(live, folded, kind, key):
            return None
        return self._difference(what, key, _shown(live, kind), _shown(folded, kind))

    def _same(self, live: bytes | None, folded: bytes | None, kind: Any, *place: str) -> bool:
        """Whether two blobs hold the same, though sealed with different keys (while secrets are rotated), or written by
        two versions of refstream, one of which knows a field more.
        """
        if live == folded or live is None or folded is None:
            return live == folded
        try:
            plain = [self._codec.plain(blob, self._tag, *place) for blob in (live, folded)]
            one, other = (msgspec.msgpack.decode(each, type=kind) for each in plain) if kind else plain
        except (Unsealable, msgspec.DecodeError):
            return False
        return bool(one == other)

    def _difference(self, what: str, key: str, live: Any, log: Any) -> Difference:
        return Difference(self._cell.name, what, key, live, log)


def _pairs(flat: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
    """A hash as a script answers with it."""
    return zip(flat[::2], flat[1::2], strict=True)


def _shown(blob: bytes | None, kind: Any) -> Any:
    if blob is None:
        return None
    if blob.startswith(SEALED):  # a terminal is no place for it
        return f"something personal, sealed as {blob[-8:].hex()}"
    try:
        return msgspec.to_builtins(msgspec.msgpack.decode(blob, type=kind)) if kind else blob.decode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return repr(blob)


def apart(live: Any, log: Any, path: str = "") -> Iterable[tuple[str, Any, Any]]:
    """The places in two JSON-like values that differ, each with both."""
    if isinstance(live, dict) and isinstance(log, dict):
        for name in sorted({*live, *log}, key=str):
            yield from apart(live.get(name), log.get(name), f"{path}.{name}" if path else str(name))
    elif live != log:
        yield path, live, log
