"""What a cell asks of its memory, and commits to it. In Redis: `redis_store.py`; in dictionaries: `memory.py`."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol

import msgspec
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from services.runtime.journal import Last
from services.runtime.reader import Rebuilding

TRANSIENT = (RedisConnectionError, RedisTimeoutError, OutOfMemoryError, ReadOnlyError, OSError, Rebuilding)
"""What passes by itself, or when somebody has made room: a lost connection (a server that is loading counts as one), a
server whose memory is full or that has become a replica, a cell that is not open yet."""
_DISK_IS_FULL = "MISCONF"
"""How such a refusal begins: the client has no class for it."""


def passes(error: Exception) -> bool:
    """Whether it is worth asking again."""
    return isinstance(error, TRANSIENT) or (isinstance(error, ResponseError) and str(error).startswith(_DISK_IS_FULL))


@contextmanager
def unless_it_passes() -> Iterator[None]:
    """Goes on behind the block after an error that passes: the next time may be better."""
    try:
        yield
    except Exception as error:
        if not passes(error):
            raise


def tag(stage: str, partition: int) -> str:
    """The prefix of all Redis keys of a cell."""
    return f"{{{stage}:{partition}}}"


class Outgoing(msgspec.Struct, frozen=True, array_like=True):
    """A record that a cell has decided to send: the `number`-th of its outbox."""

    number: int
    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


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
    """The memory of one cell."""

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
        """Let the cell be read where this is what its owner has committed. Answers whether it is.

        A cell that `open` has closed stays so. Errors: Fenced where the cell has had a later owner. That one may be
        gone: memory that goes back to a copy and forth again remembers it, and only who is told opens the cell anew.
        """
        ...

    async def trim(self, epoch: int, upto: int) -> None:
        """Forget commits' records up to a number of the outbox: all of them were seen to be sent."""
        ...
