"""Lists: every item once, newest first, whatever is added between two pages."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.http import Paging, Problem, page
from services.runtime.http.pages import Key

Place = tuple[int, str]
PLACES = st.sets(st.tuples(st.integers(0, 5), st.sampled_from("abcdef")), max_size=30)


def _key(item: Place) -> Key:
    return item


def _all(items: list[Place], limit: int, *, oldest_first: bool = False) -> list[Place]:
    got: list[Place] = []
    cursor = None
    while True:
        one = page(items, _key, Paging(limit, cursor), lambda item: item, oldest_first=oldest_first)
        assert len(one.items) <= limit
        got += one.items
        cursor = one.next_cursor
        if cursor is None:
            return got


@given(PLACES, st.integers(1, 7), st.booleans())
def test_pages_together_are_the_list_in_order(places: set[Place], limit: int, oldest_first: bool) -> None:
    assert _all(list(places), limit, oldest_first=oldest_first) == sorted(places, reverse=not oldest_first)


def test_item_that_arrives_between_two_pages_hides_and_repeats_none() -> None:
    items = [(number, "x") for number in range(6)]
    first = page(items, _key, Paging(3), lambda item: item)
    second = page([*items, (9, "new")], _key, Paging(3, first.next_cursor), lambda item: item)
    assert [*first.items, *second.items] == sorted(items, reverse=True)


def test_last_page_has_no_cursor_even_when_it_is_full() -> None:
    assert page([(1, "a"), (2, "b")], _key, Paging(2), lambda item: item).next_cursor is None


def _cursor(json: bytes) -> str:
    return base64.urlsafe_b64encode(json).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "!",
        "é",
        "x",
        "a" * 1000,
        _cursor(b"1"),
        _cursor(b"{}"),
        _cursor(b'["a",1]'),
        _cursor(b"[null]"),
        _cursor(b"[[1]]"),
    ],
)
def test_cursor_that_is_none_is_invalid(cursor: str) -> None:
    with pytest.raises(Problem) as raised:
        page([(1, "a"), (2, "b")], _key, Paging(1, cursor), lambda item: item)
    assert (raised.value.status, raised.value.code) == (422, "invalid")
    assert raised.value.errors is not None
    assert raised.value.errors[0].field == "cursor"
