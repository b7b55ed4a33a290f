"""What differs between two program documents, field by field."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.programs.terms import Program

NAMED_BY = ("kind", "from_clients", "from_referrals", "currency")
"""What tells the items of a list apart, so that one put in between does not make all after it look changed."""

_Leaves = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """A field with its value before and after; None: the field is not there."""

    field: str
    old: Any
    new: Any

    def told(self, width: int = 0) -> str:
        """`field  old → new`, the values as JSON writes them."""
        old, new = (
            "nothing" if value is None else json.dumps(value, ensure_ascii=False) for value in (self.old, self.new)
        )
        return f"{self.field:<{width}}  {old} → {new}"


def differences(old: Program | None, new: Program) -> list[Difference]:
    """The fields that change from one document to another; all that are there, where there is no old one.

    `version` is left out: a publication assigns it. A field that is left to its default counts as written out.
    """
    before = _leaves(old.as_document()) if old else {}
    after = _leaves(new.as_document())
    fields = [*after, *(field for field in before if field not in after)]
    return [
        Difference(field, before.get(field), after.get(field))
        for field in fields
        if field != "version" and before.get(field) != after.get(field)
    ]


def told(found: Sequence[Difference]) -> list[str]:
    """The differences as lines, their values below each other."""
    width = max((len(difference.field) for difference in found), default=0)
    return [f"  {difference.told(width)}" for difference in found]


def _leaves(document: dict[str, Any]) -> _Leaves:
    return dict(_walk("", document))


def _walk(field: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _walk(f"{field}.{name}" if field else name, inner)
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        name = _name_of(value)
        for number, item in enumerate(value):
            at = f"{field}[{name}={item[name]}]" if name else f"{field}[{number}]"
            # Its name says the item already, unless it has nothing else to say.
            rest = {each: inner for each, inner in item.items() if each != name} or item
            yield from _walk(at, rest)
    else:
        yield field, value


def _name_of(items: list[dict[str, Any]]) -> str | None:
    """The field that names each item of a list differently, if there is one."""
    for name in NAMED_BY:
        values = [item.get(name) for item in items]
        if None not in values and len(set(values)) == len(values):
            return name
    return None
