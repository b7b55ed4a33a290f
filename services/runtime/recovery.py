"""Opening a cell: what Redis has lost of it is folded again from the log before anybody reads or folds on.

The cell's journal says in which order (`journal.py`). Nothing lost: it costs one look at the journal's end. Something
lost, whether the last second or everything: the entries that Redis lacks are folded, in large commits, so a recovery
that is interrupted goes on where it was. The same replay, into a memory of its own, is how `refstream verify` compares.
"""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

from schemas.topics import JOURNALS, PROGRAMS
from services.runtime import journal
from services.runtime.cell import Cell, LogBehind
from services.runtime.journal import Diverged, Entry, Last
from services.runtime.stage import Record
from services.runtime.store import Outgoing

log = logging.getLogger(__name__)

TAIL_RECORDS = 1_000
"""How far from its end a journal is looked at for its last entry: those at the very end may be sent again or late."""
AT_ONCE_RECORDS = 4_000
AT_ONCE_ENTRIES = 1_000
"""How much one commit of a replay takes in."""

Told = list[tuple[Entry, list[Record]]]


class LogReader(Protocol):
    """Reads one partition number of several topics, each on its own. Kafka (`kafka_log.py`) or memory."""

    async def end(self, topic: str) -> int:
        """The offset behind the topic's last record."""
        ...

    async def seek(self, topic: str, offset: int) -> None:
        """Let `take` go on from there."""
        ...

    async def take(self, topic: str, upto: int) -> list[Record]:
        """The topic's next records with offsets below `upto`, all of them."""
        ...


async def last_entry(reader: LogReader, stage: str) -> Last:
    """Where the journal of the reader's partition ends."""
    topic = JOURNALS[stage].name
    end = await reader.end(topic)
    await reader.seek(topic, max(0, end - TAIL_RECORDS))
    return journal.last_of([journal.decoded(record.value) for record in await reader.take(topic, end)])


async def opened(
    cell: Cell, reader: LogReader, progress: Callable[[int], None] = lambda records: None
) -> list[Outgoing]:
    """Open a cell and make it whole. Answers what may not have been sent: send it before folding.

    `progress`: called with the number of records folded again after each commit. Errors: as `Cell.open` and `replay`.
    """
    last = await last_entry(reader, cell.stage.name)
    try:
        left = await cell.open(last)
    except LogBehind:
        # A former owner may have sent and trimmed in between. Now that the cell is ours, it can trim no more.
        last = await last_entry(reader, cell.stage.name)
        left = await cell.open(last)
    if not cell.behind:
        return left
    log.warning("folding again what Redis lacks", extra={"cell": cell.name, "have": cell.commits, "of": last.number})
    return await _made_whole(cell, reader, last.number, left, progress)


async def _made_whole(
    cell: Cell, reader: LogReader, upto: int, left: list[Outgoing], progress: Callable[[int], None]
) -> list[Outgoing]:
    """Fold what the cell lacks; once more from nothing where that does not follow on what it has."""
    began_at = cell.commits
    if not began_at:
        await cell.empty()  # of what somebody left who was interrupted
        left = []
    try:
        async for told in entries_after(cell, reader, upto):
            left += await cell.replay(told)
            progress(sum(len(records) for _, records in told))
        if cell.behind:
            raise Diverged(f"{cell.name}: the journal ends at {cell.commits}, and has an entry {upto}")
    except Diverged as error:
        await cell.empty()  # Fenced where a successor is at work, and what it wrote is the difference
        if not began_at:
            raise
        log.warning("folding all of it again: %s", error, extra={"cell": cell.name})
        return await _made_whole(cell, reader, upto, [], progress)
    if cell.said_differently:
        log.error(
            "the rules give other contents for what was said before",
            extra={"cell": cell.name, "commits": cell.said_differently},
        )
    return left


async def entries_after(cell: Cell, reader: LogReader, upto: int) -> AsyncIterator[Told]:
    """The journal's entries that follow on the cell's last commit, up to a number, with their records, in portions."""
    topics = [topic.name for topic in cell.stage.reads]
    for topic in topics:
        await reader.seek(topic, cell.position(topic))
    told: Told = []
    taken = 0
    async for entry in _entries(reader, JOURNALS[cell.stage.name].name, cell.commits, upto):
        records = [] if entry.topic == PROGRAMS.name else await reader.take(entry.topic, entry.end)
        told.append((entry, records))
        taken += len(records)
        if taken >= AT_ONCE_RECORDS or len(told) >= AT_ONCE_ENTRIES:
            yield told
            told, taken = [], 0
    if told:
        yield told


async def _entries(reader: LogReader, topic: str, after: int, upto: int) -> AsyncIterator[Entry]:
    """Each entry once, in order. Errors: Diverged where two commits have one number, or one is missing."""
    end = await reader.end(topic)
    at = number = after  # an entry's offset is never less than how many are before it
    known: dict[int, bytes] = {}
    await reader.seek(topic, at)
    while at < end and number < upto:
        step = min(end, at + TAIL_RECORDS)
        for record in await reader.take(topic, step):
            entry = journal.decoded(record.value)
            if entry.number > number + 1:
                raise Diverged(f"{topic} lacks the entry {number + 1}: {entry.number} comes after {number}")
            if entry.number <= number:
                if known.get(entry.number, record.value) != record.value:
                    raise Diverged(f"{topic} has two entries {entry.number}: a former owner wrote after Redis was lost")
                continue
            number = entry.number
            known[number] = record.value or b""
            known.pop(number - TAIL_RECORDS, None)
            if number <= upto:
                yield entry
        at = step


class MemoryLogReader:
    """Reads a log made of lists."""

    def __init__(self, log: Mapping[tuple[str, int], list[Record]], partition: int) -> None:
        self._log, self._partition = log, partition
        self._at: dict[str, int] = {}

    async def end(self, topic: str) -> int:
        return len(self._log.get((topic, self._partition), ()))

    async def seek(self, topic: str, offset: int) -> None:
        self._at[topic] = offset

    async def take(self, topic: str, upto: int) -> list[Record]:
        start, self._at[topic] = self._at[topic], upto
        return self._log.get((topic, self._partition), [])[start:upto]
