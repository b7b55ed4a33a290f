"""What a cell remembers, in Redis. One cell, one hash tag, so that each commit stays on one node of a cluster.

    {commission.sales:3}:meta      epoch, ready, commits, writer token, positions, edges, numbers sent, counts
    {commission.sales:3}:state     key → state
    {commission.sales:3}:rows:KEY  row id → row
    {commission.sales:3}:find      name → key
    {commission.sales:3}:answers   command id → number of the outbox by which it is on the log, and the decision
    {commission.sales:3}:outbox    number of a commit's last record → its records, all that it has to send

The commit is one script: it checks the epoch and the positions before it writes anything, since a script that fails
half-way keeps what it wrote. A writer token tells our own retry after a lost reply from another writer's commit.

`ready` names the run of the server in which the cell's owner found it whole. A server that was started again, or put in
another's place, may hold an older copy: nobody reads a cell there before its owner has looked at it. The server names
its run itself, in the script that writes it and on the connection that reads: no other server can come in between.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, Protocol, cast

import msgspec
import redis.asyncio as aioredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from schemas.commands import Answered
from schemas.ids import partition_of
from services.runtime.codec import Codec
from services.runtime.journal import Last
from services.runtime.reader import Rebuilding
from services.runtime.redis_client import Server, server_of, to
from services.runtime.stage import Row, Stage, State


class Outgoing(msgspec.Struct, frozen=True, array_like=True):
    """A record that a cell has decided to send: the `number`-th of its outbox."""

    number: int
    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


_outbox = msgspec.msgpack.Decoder(list[Outgoing])


@dataclass(frozen=True, slots=True)
class Opened:
    """A cell as its new owner finds it."""

    epoch: int
    meta: Mapping[str, int]
    outbox: tuple[Outgoing, ...]


@dataclass(slots=True)
class Commit:
    """Everything that one batch changes. `positions`: meta field → (as it must be, as it will be); commits, too."""

    epoch: int
    token: str
    positions: dict[str, tuple[int, int]] = field(default_factory=dict)
    meta: dict[str, int] = field(default_factory=dict)
    states: dict[str, bytes] = field(default_factory=dict)
    rows: dict[str, dict[str, bytes | None]] = field(default_factory=dict)
    find: dict[str, str] = field(default_factory=dict)
    answers: dict[str, bytes] = field(default_factory=dict)
    outbox: list[Outgoing] = field(default_factory=list)
    ready: bool = False
    """Whether the cell is whole by it, so that it may be read."""


class Fenced(Exception):
    """The memory is not as the cell's owner knows it: another owner has taken over, or Redis has lost some of it."""


class Moment(NamedTuple):
    """A cell's memory as its owner knows it: under this owner's epoch, after so many commits. See decision 0021."""

    epoch: int
    commits: int


class Verdict(Enum):
    APPLIED = "applied"
    MINE_ALREADY = "mine already"
    FENCED = "fenced"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a batch asked for: encoded states, rows and known answers, by key and id. Absent ones are absent."""

    states: Mapping[str, bytes]
    rows: Mapping[tuple[str, str], bytes]
    answered: frozenset[str]


class CellStore(Protocol):
    """The memory of one cell. Two implementations: Redis (here) and memory (`simulate.py`)."""

    async def open(self, last: Last = ...) -> Opened:
        """Take ownership: a new epoch, above all of the journal's; what an earlier owner left.

        Where the journal has more commits, or another one under the last number, the cell is closed to readers until a
        commit says `ready`. Else it is read as before, and where it was not, once its owner finds it `whole`.
        """
        ...

    async def empty(self, epoch: int, commits: int) -> bool:
        """Throw everything away but the epoch. Answers whether the cell is still as its owner knows it.

        Where it is interrupted some of it is left, of a cell without commits that nobody reads.
        """
        ...

    async def load(
        self, keys: Sequence[str], rows: Sequence[tuple[str, str]], commands: Sequence[str], at: Moment
    ) -> Loaded:
        """Errors, here and in the next two: Fenced where the memory is not as it was at that moment."""
        ...

    async def load_rows(self, key: str, at: Moment) -> Mapping[str, bytes]:
        """All rows of a key."""
        ...

    def scan(self, at: Moment) -> AsyncIterator[Mapping[str, bytes]]:
        """Every key of the cell with its state, in pieces and no order, a key perhaps twice."""
        ...

    async def peek(self, stage: str, partition: int, key: str) -> bytes | None:
        """The committed state of a key of another cell. Errors: Rebuilding while that cell is not ready."""
        ...

    async def commit(self, commit: Commit) -> Verdict: ...

    async def whole(self, epoch: int, commits: int) -> bool:
        """Let the cell be read where this is what its owner has committed. Answers whether it is, or another's by now.

        A cell that `open` has closed stays so.
        """
        ...

    async def trim(self, epoch: int, upto: int) -> None:
        """Forget commits' records up to a number of the outbox: all of them were seen to be sent."""
        ...


NOT_READY = b"0"
SCANNED_STATES = 500
"""How many states one step of a scan asks for: about a millisecond of Redis."""
ROWS_AT_ONCE = 50
"""Of how many keys one question of an administrator's list has every row."""
SCANNED_KEYS, UNLINKED_KEYS = 5_000, 1_000
"""How many keys one step looks at, or unlinks."""

TRANSIENT = (RedisConnectionError, RedisTimeoutError, OSError, Rebuilding)
"""What passes by itself: a lost connection (a server that is loading counts as one), a cell that is not open yet."""


def tag(stage: str, partition: int) -> str:
    """The prefix of all Redis keys of a cell."""
    return f"{{{stage}:{partition}}}"


def run_of(server: Mapping[str, Any]) -> str:
    """Which run of the server it was that answered `INFO server`."""
    return str(server["run_id"])


async def rows_keys(redis: aioredis.Redis, cell: str) -> AsyncIterator[str]:
    """The names of a cell's hashes of rows, perhaps twice. Asks for all keys of its server, in pieces."""
    pattern = f"{cell}:rows:".replace("{", r"\{").replace("[", r"\[") + "*"
    async for key in redis.scan_iter(pattern, count=SCANNED_KEYS, **to(await server_of(redis, cell))):
        yield key.decode()


async def _ask(redis: aioredis.Redis, *questions: "_Question") -> list[Any]:
    """One round trip to each server that has a cell of the questions; Rebuilding when a cell is not ready there."""
    servers = {cell: await server_of(redis, cell) for cell, _, _ in questions}
    runs: dict[Server, Any] = dict.fromkeys(servers.values())
    async with redis.pipeline(transaction=False) as pipe:
        for server in runs:
            pipe.execute_command("INFO", "server", **to(server))
        for cell, server in servers.items():
            pipe.execute_command("HGET", f"{cell}:meta", "ready", **to(server))
        for cell, command, (name, *arguments) in questions:
            pipe.execute_command(command, f"{cell}:{name}", *arguments, **to(servers[cell]))
        replies = iter(await pipe.execute())
    for server in runs:
        runs[server] = run_of(next(replies)).encode()
    if any(next(replies) != runs[server] for server in servers.values()):
        raise Rebuilding("a cell is being rebuilt")
    return list(replies)


_Question = tuple[str, str, Sequence[Any]]
"""A cell's tag, a command, and its arguments; the first of them is a name of the cell's."""


_RUN = """
local function run() return string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') end
"""

_OPEN = """
local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
if epoch <= tonumber(ARGV[1]) then
  epoch = tonumber(ARGV[1]) + 1
  redis.call('HSET', KEYS[1], 'epoch', epoch)
end
local commits = tonumber(redis.call('HGET', KEYS[1], 'commits') or '0')
local other = commits == tonumber(ARGV[2]) and (redis.call('HGET', KEYS[1], 'digest') or '0') ~= ARGV[3]
if commits < tonumber(ARGV[2]) or other then redis.call('HSET', KEYS[1], 'ready', '0') end
return {epoch, redis.call('HGETALL', KEYS[1]), redis.call('HVALS', KEYS[2])}
"""

_EMPTY = """
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
if (redis.call('HGET', KEYS[1], 'commits') or '0') ~= ARGV[2] then return 0 end
redis.call('UNLINK', unpack(KEYS))
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'ready', 0)
return 1
"""

_WHOLE = (
    _RUN
    + """
local epoch = tonumber(redis.call('HGET', KEYS[1], 'epoch') or '0')
local commits = tonumber(redis.call('HGET', KEYS[1], 'commits') or '0')
if epoch > tonumber(ARGV[1]) then return 1 end
if epoch < tonumber(ARGV[1]) or commits < tonumber(ARGV[2]) then return 0 end
local now, ready = run(), redis.call('HGET', KEYS[1], 'ready')
if ready ~= '0' and ready ~= now then redis.call('HSET', KEYS[1], 'ready', now) end
return 1
"""
)

_COMMIT = (
    _RUN
    + """
local at = 3
local function take(n)
  local part = {}
  for i = 1, n do part[i] = ARGV[at + i] end
  at = at + n
  return part
end
local function count() at = at + 1; return tonumber(ARGV[at]) end
local function write(command, key, parts)
  for from = 1, #parts, 2000 do
    redis.call(command, key, unpack(parts, from, math.min(from + 1999, #parts)))
  end
end

if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 'fenced' end
if redis.call('HGET', KEYS[1], 'token') == ARGV[2] then return 'mine already' end
local positions = take(count() * 3)
for i = 1, #positions, 3 do
  if (redis.call('HGET', KEYS[1], positions[i]) or '0') ~= positions[i + 1] then return 'fenced' end
end
for i = 1, #KEYS do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= 'hash' and kind ~= 'none' then return redis.error_reply('REFSTREAM ' .. KEYS[i] .. ' is a ' .. kind) end
end

local meta = {'token', ARGV[2]}
for i = 1, #positions, 3 do
  meta[#meta + 1] = positions[i]
  meta[#meta + 1] = positions[i + 2]
end
if ARGV[3] == '1' then
  meta[#meta + 1] = 'ready'
  meta[#meta + 1] = run()
end
write('HSET', KEYS[1], meta)
write('HSET', KEYS[1], take(count()))
for i = 2, 5 do write('HSET', KEYS[i], take(count())) end
for i = 6, #KEYS do
  write('HSET', KEYS[i], take(count()))
  write('HDEL', KEYS[i], take(count()))
end
return 'applied'
"""
)

_TRIM = """
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
for _, number in ipairs(redis.call('HKEYS', KEYS[2])) do
  if tonumber(number) <= tonumber(ARGV[2]) then redis.call('HDEL', KEYS[2], number) end
end
redis.call('HSET', KEYS[1], 'sent', ARGV[2])
return 1
"""


class RedisCellStore:
    """A cell's memory in Redis."""

    def __init__(self, redis: aioredis.Redis, stage: str, partition: int) -> None:
        self._redis = redis
        self._tag = tag(stage, partition)
        self._open = redis.register_script(_OPEN)
        self._commit = redis.register_script(_COMMIT)
        self._empty = redis.register_script(_EMPTY)
        self._whole = redis.register_script(_WHOLE)
        self._trim = redis.register_script(_TRIM)

    def _key(self, name: str) -> str:
        return f"{self._tag}:{name}"

    async def open(self, last: Last = Last()) -> Opened:  # noqa: B008 (frozen)
        keys = [self._key("meta"), self._key("outbox")]
        epoch, flat, outbox = await self._open(keys=keys, args=[last.epoch, last.number, last.digest])
        meta = {
            name.decode(): int(value)
            for name, value in zip(flat[::2], flat[1::2], strict=True)
            if name not in (b"token", b"ready")
        }
        pending = sorted((out for blob in outbox for out in _outbox.decode(blob)), key=lambda out: out.number)
        return Opened(int(epoch), meta, tuple(pending))

    async def empty(self, epoch: int, commits: int) -> bool:
        keys = [self._key(name) for name in ("meta", "state", "find", "answers", "outbox")]
        if not await self._empty(keys=keys, args=[epoch, commits]):
            return False
        rows = [key async for key in rows_keys(self._redis, self._tag)]
        for start in range(0, len(rows), UNLINKED_KEYS):
            if not await self._empty(keys=[keys[0], *rows[start : start + UNLINKED_KEYS]], args=[epoch, 0]):
                return False
        return True

    def _refuse_another(self, found: Sequence[bytes | None], at: Moment) -> None:
        if Moment(*(int(each or 0) for each in found)) != at:
            raise Fenced(self._tag)

    async def load(
        self, keys: Sequence[str], rows: Sequence[tuple[str, str]], commands: Sequence[str], at: Moment
    ) -> Loaded:
        wanted: dict[str, list[str]] = {}
        for key, row_id in rows:
            wanted.setdefault(key, []).append(row_id)
        if not keys and not wanted and not commands:
            return Loaded({}, {}, frozenset())
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hmget(self._key("meta"), Moment._fields)
            if keys:
                pipe.hmget(self._key("state"), list(keys))
            if commands:
                pipe.hmget(self._key("answers"), list(commands))
            for key, row_ids in wanted.items():
                pipe.hmget(self._key(f"rows:{key}"), row_ids)
            replies = iter(await pipe.execute())
        self._refuse_another(next(replies), at)
        states = dict(zip(keys, next(replies), strict=True)) if keys else {}
        answers = dict(zip(commands, next(replies), strict=True)) if commands else {}
        found = {
            (key, row_id): blob
            for key, row_ids in wanted.items()
            for row_id, blob in zip(row_ids, next(replies), strict=True)
            if blob is not None
        }
        return Loaded(
            {key: blob for key, blob in states.items() if blob is not None},
            found,
            frozenset(command for command, blob in answers.items() if blob is not None),
        )

    async def load_rows(self, key: str, at: Moment) -> Mapping[str, bytes]:
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hmget(self._key("meta"), Moment._fields)
            pipe.hgetall(self._key(f"rows:{key}"))
            moment, stored = await pipe.execute()
        self._refuse_another(moment, at)
        return {row_id.decode(): blob for row_id, blob in stored.items()}

    async def peek(self, stage: str, partition: int, key: str) -> bytes | None:
        (blob,) = await _ask(self._redis, (tag(stage, partition), "HGET", ("state", key)))
        return cast(bytes | None, blob)

    async def scan(self, at: Moment) -> AsyncIterator[Mapping[str, bytes]]:
        cursor, first, begun = 0, True, ""
        while cursor or first:
            async with self._redis.pipeline(transaction=False) as pipe:
                server = to(await server_of(self._redis, self._tag))
                pipe.execute_command("INFO", "server", **server)
                pipe.execute_command("HMGET", self._key("meta"), *Moment._fields, **server)
                pipe.execute_command("HSCAN", self._key("state"), cursor, "COUNT", SCANNED_STATES, **server)
                about, moment, (cursor, found) = await pipe.execute()
            self._refuse_another(moment, at)
            if not first and run_of(about) != begun:  # a cursor of one run leads nowhere in another
                raise Rebuilding(f"{self._tag} has another server")
            first, begun = False, run_of(about)
            yield {key.decode(): blob for key, blob in found.items()}

    async def commit(self, commit: Commit) -> Verdict:
        keys = [self._key(name) for name in ("meta", "state", "find", "answers", "outbox")]
        args: list[Any] = [commit.epoch, commit.token, int(commit.ready), len(commit.positions)]
        for name, (expected, new) in commit.positions.items():
            args += (name, expected, new)
        outbox = {str(commit.outbox[-1].number): msgspec.msgpack.encode(commit.outbox)} if commit.outbox else {}
        by = b"%d:" % commit.meta.get("outbox", 0)
        answers = {command_id: by + answer for command_id, answer in commit.answers.items()}
        for pairs in (commit.meta, commit.states, commit.find, answers, outbox):
            args.append(2 * len(pairs))
            for pair in cast(Mapping[str, Any], pairs).items():
                args += pair
        for key, rows in commit.rows.items():
            keys.append(self._key(f"rows:{key}"))
            kept = [part for row_id, blob in rows.items() if blob is not None for part in (row_id, blob)]
            gone = [row_id for row_id, blob in rows.items() if blob is None]
            args += [len(kept), *kept, len(gone), *gone]
        return Verdict((await self._commit(keys=keys, args=args)).decode())

    async def whole(self, epoch: int, commits: int) -> bool:
        return bool(await self._whole(keys=[self._key("meta")], args=[epoch, commits]))

    async def trim(self, epoch: int, upto: int) -> None:
        await self._trim(keys=[self._key("meta"), self._key("outbox")], args=[epoch, upto])


class RedisReader:
    """The APIs' way to what the folds remember. See `reader.Reader`."""

    def __init__(self, partitions: int, redis: aioredis.Redis, codec: Codec) -> None:
        self._partitions, self._redis, self._codec = partitions, redis, codec

    def _tag(self, stage: Stage[Any, Any], key: str) -> str:
        return tag(stage.name, partition_of(key, self._partitions))

    def _tags(self, stage: Stage[Any, Any]) -> list[str]:
        return [tag(stage.name, partition) for partition in range(self._partitions)]

    async def _ask(self, *questions: "_Question") -> list[Any]:
        return await _ask(self._redis, *questions)

    async def ready(self, stages: Sequence[Stage[Any, Any]]) -> bool:
        """Whether every cell of the stages can be read."""
        try:
            await self._ask(*((cell, "HGET", ("meta", "epoch")) for stage in stages for cell in self._tags(stage)))
        except Rebuilding:
            return False
        return True

    async def state(self, stage: Stage[State, Row], key: str) -> State:
        return (await self.states(stage, [key]))[0]

    async def states(self, stage: Stage[State, Row], keys: Sequence[str]) -> list[State]:
        blobs = await self._ask(*((self._tag(stage, key), "HGET", ("state", key)) for key in keys)) if keys else []
        return [
            self._state(stage, self._tag(stage, key), key, blob) if blob else stage.empty
            for key, blob in zip(keys, blobs, strict=True)
        ]

    async def row(self, stage: Stage[State, Row], key: str, row_id: str) -> Row | None:
        return (await self.row_each(stage, [(key, row_id)]))[0]

    async def row_each(self, stage: Stage[State, Row], places: Sequence[tuple[str, str]]) -> list[Row | None]:
        asked = ((self._tag(stage, key), "HGET", (f"rows:{key}", row_id)) for key, row_id in places)
        blobs = await self._ask(*asked) if places else []
        return [
            self._row(stage, self._tag(stage, key), key, row_id, blob) if blob else None
            for (key, row_id), blob in zip(places, blobs, strict=True)
        ]

    async def rows(self, stage: Stage[State, Row], key: str) -> dict[str, Row]:
        return (await self.rows_each(stage, [key]))[0]

    async def rows_each(self, stage: Stage[State, Row], keys: Sequence[str]) -> list[dict[str, Row]]:
        found: list[dict[str, Row]] = []
        for start in range(0, len(keys), ROWS_AT_ONCE):
            here = keys[start : start + ROWS_AT_ONCE]
            stored = await self._ask(*((self._tag(stage, key), "HGETALL", (f"rows:{key}",)) for key in here))
            found += [
                self._rows(stage, self._tag(stage, key), key, rows) for key, rows in zip(here, stored, strict=True)
            ]
        return found

    async def rows_everywhere(self, stage: Stage[State, Row], key: str) -> list[dict[str, Row]]:
        replies = await self._ask(*((cell, "HGETALL", (f"rows:{key}",)) for cell in self._tags(stage)))
        return [self._rows(stage, cell, key, stored) for cell, stored in zip(self._tags(stage), replies, strict=True)]

    async def find(self, stage: Stage[Any, Any], name: str) -> str | None:
        replies = await self._ask(*((cell, "HGET", ("find", name)) for cell in self._tags(stage)))
        return next((reply.decode() for reply in replies if reply), None)

    async def keys_of(self, stage: Stage[Any, Any], prefix: str) -> set[str]:
        replies = await self._ask(*((cell, "HGETALL", ("find",)) for cell in self._tags(stage)))
        begins = prefix.encode()
        return {key.decode() for names in replies for name, key in names.items() if name.startswith(begins)}

    async def answer(self, stages: Sequence[Stage[Any, Any]], command_id: str) -> Answered | None:
        cells = [cell for stage in stages for cell in self._tags(stage)]
        asked = [(cell, "HGET", ("answers", command_id)) for cell in cells]
        replies = await self._ask(*asked, *((cell, "HGET", ("meta", "sent")) for cell in cells))
        for cell, answer, sent in zip(cells, replies[: len(cells)], replies[len(cells) :], strict=True):
            if answer:
                by, _, decision = answer.partition(b":")
                if int(by) > int(sent or 0):  # before it is on the log it may still be lost, and decided otherwise
                    return None
                return Answered.model_validate_json(self._codec.plain(decision, cell, command_id))
        return None

    async def all_states(self, stage: Stage[State, Row]) -> AsyncIterator[tuple[str, State]]:
        cursors = dict.fromkeys(self._tags(stage), 0)
        while cursors:
            asked = ((cell, "HSCAN", ("state", cursor, "COUNT", SCANNED_STATES)) for cell, cursor in cursors.items())
            pieces = dict(zip(cursors, await self._ask(*asked), strict=True))
            for cell, (_, found) in pieces.items():
                for key, blob in found.items():
                    yield key.decode(), self._state(stage, cell, key.decode(), blob)
            cursors = {cell: cursor for cell, (cursor, _) in pieces.items() if cursor}

    def _state(self, stage: Stage[State, Row], cell: str, key: str, blob: bytes) -> State:
        return cast(State, self._codec.decode(blob, type(stage.empty), cell, key))

    def _row(self, stage: Stage[State, Row], cell: str, key: str, row_id: str, blob: bytes) -> Row:
        return cast(Row, self._codec.decode(blob, stage.row, cell, key, row_id))

    def _rows(self, stage: Stage[State, Row], cell: str, key: str, stored: Mapping[bytes, bytes]) -> dict[str, Row]:
        return {name.decode(): self._row(stage, cell, key, name.decode(), blob) for name, blob in stored.items()}
