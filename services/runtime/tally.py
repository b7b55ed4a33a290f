"""What a cell has said, counted for the dashboards: decisions by program and reason, money by program and currency.

The counts are part of each commit, so they are exact: a crash neither loses nor repeats one, a rebuild gives the same,
and the money adds up to the ledger's. Only what has a program is counted, and of reasons only those from a fixed list:
a label that holds what somebody wrote would grow without end.
"""

from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin

from schemas.events import Payload
from schemas.money import Money
from schemas.topics import TOPIC_OF

DECIDED, MONEY = "decided", "money"
_BETWEEN = "|"  # no id has one


class Tally(NamedTuple):
    """One count of a cell: `what` is DECIDED or MONEY, `of` a decision's reason ("" for none) or the currency.

    `total`: how many decisions, or how many minor units.
    """

    what: str
    type: str
    program_id: str
    of: str
    total: int


def tallied(data: Payload) -> Iterator[tuple[str, int]]:
    """What an event adds to which meta fields of its cell."""
    shape = _shape(type(data))
    if shape is None:
        return
    said: Any = data
    if said.program_id is None:
        return
    yield _field(DECIDED, data.type, said.program_id, said.reason if shape.reason else ""), 1
    if shape.amount:
        amount: Money = said.amount
        yield _field(MONEY, data.type, said.program_id, amount.currency), amount.minor


@lru_cache(maxsize=1 << 12)
def _field(what: str, kind: str, program_id: str, of: str | None) -> str:
    return _BETWEEN.join((what, kind, program_id, str(of)))


def tallies(meta: Mapping[str, int]) -> Iterator[Tally]:
    """The counts among a cell's meta fields."""
    for name, total in meta.items():
        what, *parts = name.split(_BETWEEN)
        if what in (DECIDED, MONEY):
            kind, program_id, of = parts
            yield Tally(what, kind, program_id, of, total)


class _Shape(NamedTuple):
    reason: bool
    amount: bool


@cache
def _shape(kind: type[Payload]) -> _Shape | None:
    """Which fields of an event are counted; None where the event is none that a dashboard shows."""
    fields = kind.model_fields
    if TOPIC_OF[kind].internal or "program_id" not in fields:
        return None
    reason, amount = fields.get("reason"), fields.get("amount")
    return _Shape(
        reason is not None and _from_a_list(reason.annotation),
        amount is not None and amount.annotation is Money,
    )


def _from_a_list(annotation: Any) -> bool:
    if get_origin(annotation) is Literal or annotation is NoneType:
        return True
    parts = get_args(annotation)
    return bool(parts) and all(_from_a_list(part) for part in parts)
