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


@dataclass(frozen=True, slots=True)
class Last:
    """The end of a cell's journal: the entry with the highest number, and the highest epoch of all."""

    number: int = 0
    epoch: int = 0
    sent: int = 0


class Diverged(Exception):
    """Folding the log again says something else than was said. The message names the first difference and the cure."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)


def encoded(entry: Entry) -> bytes:
    return _encoder.encode(entry)


def decoded(value: bytes | None) -> Entry:
    return _decoder.decode(value or b"")


def last_of(entries: Sequence[Entry]) -> Last:
    """Where a journal ends, from its last entries. Those sent again, or late by a former owner, are among them."""
    if not entries:
        return Last()
    last = max(entries, key=lambda entry: (entry.number, entry.epoch))
    return Last(last.number, max(entry.epoch for entry in entries), last.sent)
