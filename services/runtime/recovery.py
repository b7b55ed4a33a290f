"""Opening a cell: what Redis has lost of it is folded again from the log before anybody reads or folds on.

The cell's journal says in which order (`journal.py`). Nothing lost: it costs a claim, and a look at the journal's end
before and after it. Something lost, whether the last second or everything: the entries that Redis lacks are folded, in
large commits, so a recovery that is interrupted goes on where it was. The same replay, into a memory of its own, is how
`refstream verify` compares.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from schemas.topics import JOURNALS, PROGRAMS
from services.runtime import journal
from services.runtime.cell import Cell, LogBehind, Superseded
from services.runtime.journal import Diverged, Entry, Last
from services.runtime.stage import Record
from services.runtime.store import Outgoing

log = logging.getLogger(__name__)

TAIL_RECORDS = 1_000
"""How far from its end a journal is looked at for its last entry: those at the very end may be claims, sent again or
late. Where all of them are, it is looked at from further back.
"""
AT_ONCE_RECORDS = 8_000
AT_ONCE_ENTRIES = 1_000
"""How much one commit of a replay takes in."""

Told = list[tuple[Entry, list[Record]]]
Tell = Callable[[Sequence[Outgoing]], Awaitable[None]]
"""Sends records, and returns when they are on the log."""


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
    end, back = await reader.end(topic), TAIL_RECORDS
    while True:
        await reader.seek(topic, max(0, end - back))
        last = journal.last_of([journal.decoded(record.value) for record in await reader.take(topic, end)], end)
        if last.number or back >= end:
            return last
        back *= 4


async def opened(
    cell: Cell, reader: LogReader, tell: Tell, progress: Callable[[int], None] = lambda records: None
) -> list[Outgoing]:
    """Open a cell, claim it and make it whole. Answers what may not have been sent: send it before folding.

    `tell`: sends the claim. `progress`: called with the number of records folded again after each commit.
    Errors: as `Cell.open` and `replay`; Superseded where another one claims the cell at the same time.
    """
    last = await last_entry(reader, cell.stage.name)
    while True:
        left, last = await _taken_over(cell, reader, last)
        await tell([cell.claim()])
        now = await last_entry(reader, cell.stage.name)
        if cell.is_superseded_by(now):
            raise Superseded(cell.name)
        if now.number == last.number:
            break
        last = now  # a former owner was still writing, before the claim: that counts
    cell.journal_end = now.end
    if not cell.behind:
        await cell.let_read()
        return left
    log.warning(
        "folding again what Redis lacks",
        extra={"cell": cell.name, "have": 0 if cell.is_astray else cell.commits, "of": last.number},
    )
    return await _made_whole(cell, reader, last.number, left, progress)


async def _taken_over(cell: Cell, reader: LogReader, last: Last) -> tuple[list[Outgoing], Last]:
    try:
        return await cell.open(last), last
    except LogBehind:
        # A former owner may have sent and trimmed in between. Now that the cell is ours, it can trim no more.
        last = await last_entry(reader, cell.stage.name)
        return await cell.open(last), last


async def confirm(
    cell: Cell, start: int, count: int, reading: Callable[[], AbstractAsyncContextManager[LogReader]]
) -> None:
    """See that entries which the cell's owner has sent count, before anything that they tell of is sent.

    `start`: the offset of the first of them, below 0: not known; `count`: how many. They do where nobody else has
    written to the journal since the owner looked last, which costs nothing; else it looks at what was written.
    Errors: Superseded.
    """
    if start == cell.journal_end:
        cell.journal_end += count
        return
    topic = JOURNALS[cell.stage.name].name
    async with reading() as reader:
        end = await reader.end(topic)
        await reader.seek(topic, cell.journal_end)
        written = await reader.take(topic, end if start < 0 else max(start, cell.journal_end))
    if journal.last_of([journal.decoded(record.value) for record in written]).epoch > cell.epoch:
        raise Superseded(cell.name)
    cell.journal_end = end if start < 0 else max(cell.journal_end, start + count)


async def _made_whole(
    cell: Cell, reader: LogReader, upto: int, left: list[Outgoing], progress: Callable[[int], None]
) -> list[Outgoing]:
    """Fold what the cell lacks; once more from nothing where that does not follow on what it has."""
    if cell.is_astray or not cell.commits:
        await cell.empty()  # of what never came to be, or of what somebody left who was interrupted
        left = []
    began_at = cell.commits
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
    """Each entry that counts once, in order. Errors: Diverged where two commits have one number, or one is missing."""
    end = await reader.end(topic)
    at = number = after  # an entry's offset is never less than how many are before it
    known: dict[int, int] = {}
    succession = journal.Succession()
    await reader.seek(topic, at)
    while at < end and number < upto:
        step = min(end, at + TAIL_RECORDS)
        for record in await reader.take(topic, step):
            entry = journal.decoded(record.value)
            if not succession.counts(entry) or entry.is_claim:
                continue
            if entry.number > number + 1:
                raise Diverged(f"{topic} lacks the entry {number + 1}: {entry.number} comes after {number}")
            if entry.number <= number:
                if known.get(entry.number, entry.digest) != entry.digest:
                    raise Diverged(f"{topic} has two entries {entry.number}")
                continue
            number = entry.number
            known[number] = entry.digest
            known.pop(number - TAIL_RECORDS, None)
            if number <= upto:
                yield entry
        at = step


class MemoryLogReader:
    """Reads a log made of lists."""

    def __init__(self, log: MutableMapping[tuple[str, int], list[Record]], partition: int) -> None:
        self._log, self._partition = log, partition
        self._at: dict[str, int] = {}

    async def tell(self, outgoing: Sequence[Outgoing]) -> None:
        """Write records to the log itself."""
        for out in outgoing:
            records = self._log.setdefault((out.topic, out.partition), [])
            records.append(Record(out.topic, out.partition, len(records), out.key, out.value, 0, out.headers))

    async def end(self, topic: str) -> int:
        return len(self._log.get((topic, self._partition), ()))

    async def seek(self, topic: str, offset: int) -> None:
        self._at[topic] = offset

    async def take(self, topic: str, upto: int) -> list[Record]:
        start, self._at[topic] = self._at[topic], upto
        return self._log.get((topic, self._partition), [])[start:upto]
