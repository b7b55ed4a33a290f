"""Reading cells in Redis, as APIs do: only where their owner has found them whole, in this run of the server.

A server that was started again, or put in another's place, may hold an older copy: nobody reads a cell there before its
owner has looked at it. The server names its run on the connection that reads, so no other server can come in between.
"""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, cast

import redis.asyncio as aioredis

from schemas.commands import Answered
from schemas.ids import partition_of
from services.runtime.codec import Codec
from services.runtime.reader import Rebuilding
from services.runtime.redis_client import Server, server_of, to
from services.runtime.stage import Row, Stage, State
from services.runtime.store import tag

SCANNED_STATES = 500
"""How many states one step of a scan asks for: about a millisecond of Redis."""
ROWS_AT_ONCE = 50
"""Of how many keys one question of an administrator's list has every row."""
SCANNED_KEYS = 5_000
"""How many keys one step looks at."""

Question = tuple[str, str, Sequence[Any]]
"""A cell's tag, a command, and its arguments; the first of them is a name of the cell's."""


ABOUT_THE_SERVER = "INFO SERVER"
"""In one word: redis-py then leaves the answer as it is, of which one line is wanted."""
_RUN_ID = re.compile(rb"run_id:(\w+)")


def run_of(about: bytes) -> bytes:
    """Which run of the server it was that answered `ABOUT_THE_SERVER`."""
    found = _RUN_ID.search(about)
    assert found is not None, "a server says its run_id"
    return found[1]


async def rows_keys(redis: aioredis.Redis, cell: str) -> AsyncIterator[str]:
    """The names of a cell's hashes of rows, perhaps twice. Asks for all keys of its server, in pieces."""
    pattern = f"{cell}:rows:".replace("{", r"\{").replace("[", r"\[") + "*"
    async for key in redis.scan_iter(pattern, count=SCANNED_KEYS, **to(await server_of(redis, cell))):
        yield key.decode()


async def ask(redis: aioredis.Redis, *questions: Question) -> list[Any]:
    """One round trip to each server that has a cell of the questions; Rebuilding when a cell is not ready there."""
    servers = {cell: await server_of(redis, cell) for cell, _, _ in questions}
    runs: dict[Server, Any] = dict.fromkeys(servers.values())
    async with redis.pipeline(transaction=False) as pipe:
        for server in runs:
            pipe.execute_command(ABOUT_THE_SERVER, **to(server))
        for cell, server in servers.items():
            pipe.execute_command("HGET", f"{cell}:meta", "ready", **to(server))
        for cell, command, (name, *arguments) in questions:
            pipe.execute_command(command, f"{cell}:{name}", *arguments, **to(servers[cell]))
        replies = iter(await pipe.execute())
    for server in runs:
        runs[server] = run_of(next(replies))
    if any(next(replies) != runs[server] for server in servers.values()):
        raise Rebuilding("a cell is being rebuilt")
    return list(replies)


class RedisReader:
    """The APIs' way to what the folds remember. See `reader.Reader`."""

    def __init__(self, partitions: int, redis: aioredis.Redis, codec: Codec) -> None:
        self._partitions, self._redis, self._codec = partitions, redis, codec

    def _tag(self, stage: Stage[Any, Any], key: str) -> str:
        return tag(stage.name, partition_of(key, self._partitions))

    def _tags(self, stage: Stage[Any, Any]) -> list[str]:
        return [tag(stage.name, partition) for partition in range(self._partitions)]

    async def _ask(self, *questions: Question) -> list[Any]:
        return await ask(self._redis, *questions)

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

    async def answers(self, stages: Sequence[Stage[Any, Any]], command_ids: Sequence[str]) -> dict[str, Answered]:
        cells = [cell for stage in stages for cell in self._tags(stage)]
        asked = [(cell, "HMGET", ("answers", *command_ids)) for cell in cells]
        replies = await self._ask(*asked, *((cell, "HGET", ("meta", "sent")) for cell in cells))
        found: dict[str, Answered] = {}
        for cell, answers, sent in zip(cells, replies[: len(cells)], replies[len(cells) :], strict=True):
            for command_id, answer in zip(command_ids, answers, strict=True):
                if answer:
                    by, _, decision = answer.partition(b":")
                    if int(by) <= int(sent or 0):  # before it is on the log it may still be lost, and decided otherwise
                        plain = self._codec.plain(decision, cell, command_id)
                        found[command_id] = Answered.model_validate_json(plain)
        return found

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
