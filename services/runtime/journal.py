"""The journal: in which order a cell folded what, so that a rebuild gives the same bytes.

A cell reads several topics, and in which order their records meet is chance. What a rule decides may follow from that
order (which of two withdrawals came first, whether a code existed at a signup), and so may the order of what was said.
So each commit writes one entry to the cell's own journal topic, before anything that it says is sent:

    which records      a topic and a range of its offsets; or the keys that a late program version was folded for; or
                       nothing, after a rest, to note that all was sent
    what was known     how many versions of each program, and what the rules looked up outside of the cell
    what was said      how many records to each topic and partition, and a digest of them all

Steps are pure, so the entries and the topics give every state again, byte for byte, wherever and whenever they are
folded; what is said then is what was said, under the same numbers, and need not be sent again. An entry holds ids and
digests alone, nothing personal. See docs/decisions/0013.

The journal's order on the log also decides between two who hold a cell for theirs, whatever becomes of Redis: each
owner begins with a *claim*, and an entry behind the claim of a later owner does not count. See docs/decisions/0017.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec


class Learnt(msgspec.Struct, frozen=True, array_like=True):
    """A key that a program version which came late was folded for."""

    key: str
    program_id: str
    version: int


class LookedUp(msgspec.Struct, frozen=True, array_like=True):
    """What a step was shown of `name` at `where` (another stage, or something outside of the log), encoded."""

    where: str
    name: str
    shown: bytes | None


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One commit of a cell: the `number`-th, counted from 1.

    `start`, `end`: the offsets of `topic`, half-open; of the topic `programs`: `learnt` and `marks` instead.
    `sent`: up to which number of the outbox everything was seen to be sent. `programs`: how many versions are known of
    each program, where more are than before. `said`: how many records, by topic and partition. `digest`: of all that.
    A claim is an entry without a topic; its `number` is the commit that it goes on from, its `digest` the owner's id.
    """

    number: int
    epoch: int
    sent: int
    topic: str
    start: int = 0
    end: int = 0
    clock_offset: int = 0
    programs: dict[str, int] = {}
    looked_up: tuple[LookedUp, ...] = ()
    learnt: tuple[Learnt, ...] = ()
    marks: dict[str, int] = {}
    said: dict[str, int] = {}
    digest: bytes = b""

    @property
    def is_claim(self) -> bool:
        return not self.topic


@dataclass(frozen=True, slots=True)
class Last:
    """The end of a cell's journal: the entry with the highest number that counts, and the highest epoch of all.

    `owner`: who claimed the cell last with that epoch. `end`: the offset behind all that was looked at.
    """

    number: int = 0
    epoch: int = 0
    sent: int = 0
    owner: bytes = b""
    end: int = 0


class Diverged(Exception):
    """Folding the log again says something else than was said. The message names the first difference and the cure."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)


def encoded(entry: Entry) -> bytes:
    return _encoder.encode(entry)


def decoded(value: bytes | None) -> Entry:
    return _decoder.decode(value or b"")


def last_of(entries: Sequence[Entry], end: int = 0) -> Last:
    """Where a journal ends, from its last entries. Those sent again, or late by a former owner, are among them."""
    number = epoch = sent = 0
    owner = b""
    for entry in entries:
        if entry.epoch < epoch:
            continue  # of a former owner, who does not know yet
        epoch = entry.epoch
        if entry.is_claim:
            owner = entry.digest
        elif entry.number >= number:
            number, sent = entry.number, entry.sent
    return Last(number, epoch, sent, owner, end)
