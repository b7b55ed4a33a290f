"""Waiting for decisions, for all requests of a process together.

However many commands wait, one question at a time asks Redis for all of them: were each request to ask for its own, a
hundred that wait would keep the process busy with asking, and make each other wait longer.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from schemas.commands import Answered
from services.runtime.reader import Reader, Rebuilding
from services.runtime.stage import Stage

FIRST_PAUSE_SECONDS = 0.003
LAST_PAUSE_SECONDS = 0.015

_Waiting = dict[str, set[asyncio.Future[Answered]]]
"""By a command's id, those who wait for it."""


class Decisions:
    """What the folds decide, as soon as it is there."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._waiting: dict[tuple[str, ...], tuple[Sequence[Stage[Any, Any]], _Waiting]] = {}
        self._asking: asyncio.Task[None] | None = None
        self._pause = FIRST_PAUSE_SECONDS

    async def of(self, stages: Sequence[Stage[Any, Any]], command_id: str, seconds: float) -> Answered | None:
        """The decision on a command of one of the stages; None where there is none after so many seconds.

        Errors: what the reader raises, but Rebuilding: the command is on the log, and will be decided.
        """
        named = tuple(stage.name for stage in stages)
        _, waiting = self._waiting.setdefault(named, (stages, {}))
        decided: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        waiting.setdefault(command_id, set()).add(decided)
        self._pause = FIRST_PAUSE_SECONDS
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        try:
            async with asyncio.timeout(seconds):
                return await decided
        except TimeoutError:
            return None
        finally:
            waiting[command_id].discard(decided)
            if not waiting[command_id]:
                del waiting[command_id]

    async def _ask(self) -> None:
        """Until nobody waits. At least half of the time is a pause, so that much asking cannot crowd out the rest."""
        clock = asyncio.get_running_loop().time
        took = 0.0
        while any(waiting for _, waiting in self._waiting.values()):
            await asyncio.sleep(max(self._pause, took))
            self._pause = min(self._pause * 1.5, LAST_PAUSE_SECONDS)
            began = clock()
            for stages, waiting in tuple(self._waiting.values()):  # others may come while one is asked
                await self._ask_for(stages, waiting)
            took = clock() - began

    async def _ask_for(self, stages: Sequence[Stage[Any, Any]], waiting: _Waiting) -> None:
        asked = list(waiting)
        if not asked:
            return
        try:
            answers = await self._reader.answers(stages, asked)
        except Rebuilding:
            return
        except Exception as error:  # each request says it in its own way
            for _, decided in _undecided(waiting, asked):
                decided.set_exception(error)
            return
        for command_id, decided in _undecided(waiting, answers):
            decided.set_result(answers[command_id])


def _undecided(waiting: _Waiting, command_ids: Iterable[str]) -> Iterator[tuple[str, asyncio.Future[Answered]]]:
    """Those who still wait for one of the commands; one who has given up may be among `waiting` for a moment."""
    for command_id in command_ids:
        for decided in waiting.get(command_id, ()):
            if not decided.done():
                yield command_id, decided
