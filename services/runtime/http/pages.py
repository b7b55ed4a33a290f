"""Lists: `{items, next_cursor}`, newest first, cut at a cursor that is the sort key of the last item shown.

A cursor names a place in the order, not a position, so items that arrive meanwhile neither repeat nor hide others.
"""

import base64
import binascii
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

import orjson
from fastapi import Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from services.runtime.http.problems import invalid

Item = TypeVar("Item")
Shown = TypeVar("Shown")
Key = tuple[int | str, ...]


class Page(BaseModel, Generic[Shown]):
    """One page of a list."""

    model_config = ConfigDict(frozen=True)
    items: list[Shown]
    next_cursor: str | None = Field(description="for `cursor` of the next page; null at the end")


@dataclass(frozen=True, slots=True)
class Paging:
    """How much of a list, and from where."""

    limit: int = 50
    cursor: str | None = None


async def paging(
    limit: Annotated[int, Query(ge=1, le=100, description="Items on a page.")] = 50,
    cursor: Annotated[str | None, Query(max_length=1024, description="`next_cursor` of the page before.")] = None,
) -> Paging:
    """The dependency behind `ThePaging`."""
    return Paging(limit, cursor)


ThePaging = Annotated[Paging, Depends(paging)]
"""Parameter type of a list: `paging: ThePaging`."""


def _encode(key: Key) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(key)).decode().rstrip("=")


def _decode(cursor: str) -> Key:
    """Errors: Problem 422 for anything that `_encode` did not write."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        key = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (UnicodeEncodeError, binascii.Error, orjson.JSONDecodeError):
        raise invalid("cursor", "Use next_cursor of the page before.") from None
    if not isinstance(key, list) or not all(type(part) in (int, str) for part in key):
        raise invalid("cursor", "Use next_cursor of the page before.")
    return tuple(key)


def cut(
    items: Iterable[Item], key: Callable[[Item], Key], paging: Paging, *, oldest_first: bool = False
) -> tuple[list[Item], str | None]:
    """The items that `paging` asks for, in order, and the cursor of the next page.

    `key`: unique and always of the same shape, time first, like `(occurred_at, payment_id)`. The items come in any
    order. Errors: Problem 422 for a cursor that is not of this list.
    """
    if paging.cursor is not None:
        after = _decode(paging.cursor)
        try:
            items = [item for item in items if (key(item) > after if oldest_first else key(item) < after)]
        except TypeError:  # a cursor of another list, with keys of another shape
            raise invalid("cursor", "Use next_cursor of the page before.") from None
    first = heapq.nsmallest if oldest_first else heapq.nlargest  # most lists are long, and pages short
    found = first(paging.limit + 1, items, key=key)
    here = found[: paging.limit]
    return here, _encode(key(here[-1])) if len(found) > len(here) else None


def page(
    items: Iterable[Item],
    key: Callable[[Item], Key],
    paging: Paging,
    show: Callable[[Item], Shown],
    *,
    oldest_first: bool = False,
) -> Page[Shown]:
    """The page that `cut` finds, each item as `show` makes it."""
    here, next_cursor = cut(items, key, paging, oldest_first=oldest_first)
    return Page(items=[show(item) for item in here], next_cursor=next_cursor)
