"""A stage: what one fold reads, remembers per key, and decides. The vocabulary that every `rules.py` speaks.

A stage is a pure function `step(context, state, event) -> Change`, called for one event of one key at a time, in the
order of its cell. It reads no clock, no random number, no network and no global. What it may look at is in `Context`;
what it decides is in `Change`; the loop (`cell.py`) makes both durable in one commit.

A key's memory has two parts. The *state* is small and always at hand. The *rows* are many (a partner's payments) and
are read one by one, or all of them when a late event needs a recomputation: asking for what is not loaded raises
`Missing`, the loop loads it and calls `step` again. A step must therefore change nothing outside its `Change`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from schemas.events import Event, Payload, ProgramPublished
from schemas.programs import Programs
from schemas.topics import Topic

State = TypeVar("State", bound=msgspec.Struct)
Row = TypeVar("Row", bound=msgspec.Struct)


class Record(msgspec.Struct, frozen=True):
    """A Kafka record as it came. `appended_at`: microseconds since 1970 UTC, as the broker dated it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    appended_at: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


class Emit(msgspec.Struct, frozen=True):
    """An event to write. Its topic and key follow from the payload.

    `id` derives from its cause, so a replay repeats it. `key` overrides the topic's key (a customer's own bonus).
    `written`: the data as JSON, where the step had to write it itself.
    """

    id: str
    time: int
    data: Payload
    key: str | None = None
    written: bytes | None = None


class DeadLetter(msgspec.Struct, frozen=True):
    """A record that cannot count, as it came, with the reason and the field at fault."""

    record: Record
    reason: str
    field: str = ""


class Commanded(Protocol):
    """What a command, and an internal event on its behalf, say of who asked."""

    @property
    def command_id(self) -> str: ...
    @property
    def body_hash(self) -> str: ...
    @property
    def caller(self) -> str: ...


class Answer(msgspec.Struct, frozen=True):
    """The decision on a command: what its POST answers, now and whenever the same key comes again."""

    to: Commanded
    status: int
    body: dict[str, Any]


def refused(command: Commanded, code: str, detail: str, status: int = 409) -> Answer:
    """A named refusal: a problem document with its stable code."""
    return Answer(command, status, {"code": code, "detail": detail})


def invalid(command: Commanded, field: str, message: str) -> Answer:
    """A field that only the fold could refuse, as the HTTP layer would have refused it."""
    body = {"code": "invalid", "detail": "The request is not valid.", "errors": [{"field": field, "message": message}]}
    return Answer(command, 422, body)


class Change(msgspec.Struct, Generic[State, Row], frozen=True):
    """What one step decided. All of it is committed together with the positions, or none of it.

    `state`: the key's new state, None: as before. `rows`: rows to write, None as value: to remove.
    `find`: names (a payment id, a withdrawal id) under which the API finds this key again. `forget`: ids of commands
    whose answers tell of a person who is forgotten: they stay answered, and nobody is told any more what.
    """

    state: State | None = None
    rows: Mapping[str, Row | None] = msgspec.field(default_factory=dict)
    emits: tuple[Emit, ...] = ()
    answers: tuple[Answer, ...] = ()
    dead_letters: tuple[DeadLetter, ...] = ()
    find: tuple[str, ...] = ()
    forget: tuple[str, ...] = ()


class Missing(LookupError):
    """Something that a step asked for is not loaded yet: the loop loads it and calls the step again.

    `what`: ("rows",) all rows of the key; ("own", key) another key of the same cell; ("peek", stage, key) what another
    cell of the service shows of a key.
    """

    def __init__(self, *what: str) -> None:
        super().__init__(*what)
        self.what = what


class Rows(Generic[Row]):
    """The rows of one key. Reading a row that is not loaded raises Missing."""

    def __init__(self, loaded: Mapping[str, Row | None] | None = None, complete: bool = False) -> None:
        self._loaded: dict[str, Row | None] = dict(loaded or {})
        self.complete = complete

    def get(self, row_id: str) -> Row | None:
        """One row, or None where there is none."""
        if row_id in self._loaded or self.complete:
            return self._loaded.get(row_id)
        raise Missing("rows")

    def all(self) -> dict[str, Row]:
        """Every row of the key, in order of id. A late event's way to recompute; not for the common case."""
        if not self.complete:
            raise Missing("rows")
        return {row_id: row for row_id, row in sorted(self._loaded.items()) if row is not None}

    def put(self, row_id: str, row: Row | None) -> None:
        """For the loop: later events of a batch see the rows that earlier ones wrote."""
        self._loaded[row_id] = row

    def knows(self, row_id: str) -> bool:
        """For the loop: whether a row need not be loaded."""
        return self.complete or row_id in self._loaded

    def fill(self, stored: Mapping[str, Row]) -> None:
        """For the loop: all stored rows, under those that the batch has written since."""
        self._loaded = {**stored, **self._loaded}
        self.complete = True

    def __iter__(self) -> Iterator[str]:
        return iter(self.all())


class Context(msgspec.Struct, Generic[Row], frozen=True):
    """What a step may look at beside its key's state.

    `programs`: every program version that is known. `rows`: the key's rows. `record`: where the event came from.
    `key`: the key that is folded. `peek(stage, key)`: what a stage of the same service shows (`Stage.shows`) of a key,
    None of one never seen; or what something outside of the log says (`Stage.outside`). What is read there is decided
    once and goes to the journal with the decision.
    """

    key: str
    programs: Programs
    rows: Rows[Row]
    record: Record
    peek: Callable[[str, str], Any]


@dataclass(frozen=True)
class Stage(Generic[State, Row]):
    """One fold of a service.

    `name`: like "commission.sales", part of every Redis key of its cells. `empty`: the state of a key never seen.
    `row`: the type (or tagged union) of its rows. `row_ids`: the rows that an event will read, loaded with the state in
    one round trip; rows not named here are loaded when asked for, all of the key at once. `waiting`: how many events
    the state holds that wait for others. `repriced`: whether a program version that becomes known can change what was
    said of a key; the loop then calls `step` with it, once (`cell.py`, versions that come late). A state that depends
    on a program names its id. None: the stage prices nothing by the version in force at the event. `key`: the key to
    fold an event under instead of its topic's, None to pass the event over; several cells may then have a state under
    the same key, each of what it has read itself. `shows`: what other keys may look at, nothing personal, since it goes
    to their journals. `outside`: what is asked of something that is not on the log (a secret of the settings), by name.
    `personal`: the types of state and rows that tell of a person; Redis holds them sealed (`codec.py`).
    """

    name: str
    reads: tuple[Topic, ...]
    empty: State
    step: Callable[[Context[Row], State, Event], Change[State, Row]]
    row: Any = None
    row_ids: Callable[[Event], tuple[str, ...]] = lambda event: ()
    waiting: Callable[[State], int] = lambda state: 0
    repriced: Callable[[State, ProgramPublished], bool] | None = None
    key: Callable[[Event], str | None] | None = None
    shows: Callable[[State], Any] = lambda state: state
    outside: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)
    personal: tuple[type, ...] = ()

    @property
    def service(self) -> str:
        return self.name.split(".")[0]
