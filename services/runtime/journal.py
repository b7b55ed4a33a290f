"""The journal: in which order a cell folded what, so that a rebuild gives the same bytes.

A cell reads several topics, and in which order their records meet is chance. What a rule decides may follow from that
order (which of two withdrawals came first, whether a code existed at a signup), and so may the order of what was said.
So each commit writes one entry to the cell's own journal topic, before anything that it says is sent:

    which records      a topic and a range of its offsets; or the keys that a late program version was folded for; or
                       nothing, after a rest, to note that all was sent
    what was known     how many versions of each program, and what the rules looked up outside of the cell
    what was said      how many records to each topic and partition
    what it follows    the digest of the entry before it; its own is of all that, and of the records that were said

Steps are pure, so the entries and the topics give every state again, byte for byte, wherever and whenever they are
folded; what is said then is what was said, under the same numbers, and need not be sent again. An entry holds ids and
digests alone, nothing personal. See docs/decisions/0013.

The digests make the entries a chain: who knows the last one knows all that a cell has ever done, and whether what Redis
holds is that, or something that never came to be. See docs/decisions/0020.

The journal's order on the log also decides between two who hold a cell for theirs, whatever becomes of Redis: each
owner begins with a *claim*, and an entry behind the claim of a later owner does not count. See docs/decisions/0017.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec.structs import replace


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
    each program, where more are than before. `said`: how many records, by topic and partition. `follows`: the digest of
    the entry before it, 0 for the first. `digest`: see `sealed`.
    A claim is an entry without a topic, by `owner`; its `number` is the commit that it goes on from.
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
    follows: int = 0
    digest: int = 0
    owner: bytes = b""

    @property
    def is_claim(self) -> bool:
        return not self.topic


@dataclass(frozen=True, slots=True)
class Last:
    """The end of a cell's journal: the entry with the highest number that counts, and the highest epoch of all.

    `sent`, `digest`: as that entry has them. `owner`: who claimed the cell first with that epoch. `end`: the offset
    behind all that was looked at.
    """

    number: int = 0
    epoch: int = 0
    sent: int = 0
    digest: int = 0
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


def new_digest() -> Any:
    """Takes in what is said, record by record; see `sealed`."""
    return hashlib.blake2b(digest_size=8)


def sealed(entry: Entry, said: Any) -> Entry:
    """The entry with its digest: of what it follows, of what it tells, and of the records `said`, whoever tells it."""
    said.update(_encoder.encode(replace(entry, epoch=0, sent=0, digest=0)))
    return replace(entry, digest=int.from_bytes(said.digest(), "big"))


class Succession:
    """Which entries count, told one after the other: those of a former owner behind a later one's claim do not."""

    def __init__(self) -> None:
        self._epoch = 0

    def counts(self, entry: Entry) -> bool:
        if entry.epoch < self._epoch:
            return False
        self._epoch = entry.epoch
        return True


def last_of(entries: Sequence[Entry], end: int = 0) -> Last:
    """Where a journal ends, from its last entries. Those sent again, or late by a former owner, are among them."""
    last, succession = Entry(0, 0, 0, ""), Succession()
    epoch, owner = 0, b""
    for entry in filter(succession.counts, entries):
        if entry.is_claim and entry.epoch > epoch:
            owner = entry.owner
        elif not entry.is_claim and entry.number >= last.number:
            last = entry
        epoch = entry.epoch
    return Last(last.number, epoch, last.sent, last.digest, owner, end)
