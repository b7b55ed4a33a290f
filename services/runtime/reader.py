"""Reading what the folds remember: the APIs' only way to a service's state in Redis.

Every method answers from the committed state of the owning cell and raises `Rebuilding` while that cell is not open,
so that an API says 503 instead of wrong figures.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from schemas.commands import Answered
from services.runtime.stage import Row, Stage, State


class Rebuilding(Exception):
    """The state that was asked for is being rebuilt; it can be read again soon."""


class Reader(Protocol):
    """What an API may ask. Two implementations: Redis (`redis_reader.py`) and memory (`simulate.py`)."""

    async def state(self, stage: Stage[State, Row], key: str) -> State:
        """The state of one key; `stage.empty` for a key never seen."""
        ...

    async def states(self, stage: Stage[State, Row], keys: Sequence[str]) -> list[State]:
        """The states of several keys, in one round trip."""
        ...

    async def row(self, stage: Stage[State, Row], key: str, row_id: str) -> Row | None: ...

    async def row_each(self, stage: Stage[State, Row], places: Sequence[tuple[str, str]]) -> list[Row | None]:
        """The rows at several places, each a key and a row's id, in one round trip."""
        ...

    async def rows(self, stage: Stage[State, Row], key: str) -> dict[str, Row]:
        """Every row of one key."""
        ...

    async def rows_each(self, stage: Stage[State, Row], keys: Sequence[str]) -> list[dict[str, Row]]:
        """Every row of each of several keys, in few round trips. For an administrator's lists."""
        ...

    async def rows_everywhere(self, stage: Stage[State, Row], key: str) -> list[dict[str, Row]]:
        """The rows that each cell of the stage keeps under a key (counts that no single cell owns)."""
        ...

    async def find(self, stage: Stage[Any, Any], name: str) -> str | None:
        """The key that noted `name` in `Change.find`, whichever cell it lives in."""
        ...

    async def keys_of(self, stage: Stage[Any, Any], prefix: str) -> set[str]:
        """Every key that noted a name which begins so. It looks through all names of the stage: for one with few."""
        ...

    async def answers(self, stages: Sequence[Stage[Any, Any]], command_ids: Sequence[str]) -> dict[str, Answered]:
        """The decisions on those commands that are decided, whichever cell of the stages gave them; one round trip."""
        ...

    def all_states(self, stage: Stage[State, Row]) -> AsyncIterator[tuple[str, State]]:
        """Every key of a stage with its state, in no order. For an administrator's lists."""
        ...
