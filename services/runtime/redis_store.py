"""What a cell remembers, in Redis. One cell, one hash tag, so that each commit stays on one node of a cluster.

    {commission.sales:3}:meta      epoch, ready, commits, writer token, positions, edges, numbers sent, counts
    {commission.sales:3}:state     key → state
    {commission.sales:3}:rows:KEY  row id → row
    {commission.sales:3}:find      name → key
    {commission.sales:3}:answers   command id → number of the outbox by which it is on the log, and the decision
    {commission.sales:3}:outbox    number of a commit's last record → its records, all that it has to send

The commit is one script: it checks the epoch and the positions before it writes anything, since a script that fails
half-way keeps what it wrote. A writer token tells our own retry after a lost reply from another writer's commit.

`ready` names the run of the server in which the cell's owner found it whole, and lets it be read: `redis_reader.py`.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, cast

import msgspec
import redis.asyncio as aioredis

from services.runtime.journal import Last
from services.runtime.reader import Rebuilding
from services.runtime.redis_client import server_of, to
from services.runtime.redis_reader import ABOUT_THE_SERVER, SCANNED_STATES, ask, rows_keys, run_of
from services.runtime.store import Commit, Fenced, Loaded, Moment, Opened, Outgoing, Verdict, tag

NOT_READY = b"0"
UNLINKED_KEYS = 1_000
"""How many keys one step unlinks."""

_outbox = msgspec.msgpack.Decoder(list[Outgoing])

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
if epoch > tonumber(ARGV[1]) then return -1 end
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
        (blob,) = await ask(self._redis, (tag(stage, partition), "HGET", ("state", key)))
        return cast(bytes | None, blob)

    async def scan(self, at: Moment) -> AsyncIterator[Mapping[str, bytes]]:
        cursor, first, begun = 0, True, b""
        while cursor or first:
            async with self._redis.pipeline(transaction=False) as pipe:
                server = to(await server_of(self._redis, self._tag))
                pipe.execute_command(ABOUT_THE_SERVER, **server)
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
        found = await self._whole(keys=[self._key("meta")], args=[epoch, commits])
        if found < 0:
            raise Fenced(self._tag)
        return bool(found)

    async def trim(self, epoch: int, upto: int) -> None:
        await self._trim(keys=[self._key("meta"), self._key("outbox")], args=[epoch, upto])
