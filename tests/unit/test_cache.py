"""The states that a process keeps at hand: what was used last stays, and all together stay within the limit."""

from hypothesis import given
from hypothesis import strategies as st

from services.runtime.cache import PER_BYTE, PER_STATE, Cache

SIZE = (250_000 - PER_STATE) // PER_BYTE
"""Four of it fill a megabyte."""


def test_what_was_used_last_stays() -> None:
    shelf = Cache(1).shelf()
    for key in "abcd":
        shelf.put(key, key.upper(), SIZE)
    assert shelf.get("a") == "A"
    shelf.put("e", "E", SIZE)
    assert [shelf.get(key) for key in "abcde"] == ["A", None, "C", "D", "E"]


def test_a_state_that_grows_counts_as_it_is_now() -> None:
    shelf = Cache(1).shelf()
    shelf.put("a", "small", SIZE)
    shelf.put("a", "large", 3 * SIZE)
    shelf.put("b", "small", SIZE)
    assert (shelf.get("a"), shelf.get("b")) == ("large", "small")
    shelf.put("b", "larger", 2 * SIZE)
    assert (shelf.get("a"), shelf.get("b")) == (None, "larger")


def test_a_state_above_the_limit_is_not_kept_and_leaves_room_for_others() -> None:
    shelf = Cache(1).shelf()
    shelf.put("a", "huge", 5 * SIZE)
    assert shelf.get("a") is None
    for key in "abcd":
        shelf.put(key, "small", SIZE)
    assert all(shelf.get(key) for key in "abcd")


def test_cells_share_the_limit_and_nothing_else() -> None:
    cache = Cache(1)
    left, right = cache.shelf(), cache.shelf()
    left.put("a", "left", 3 * SIZE)
    right.put("a", "right", SIZE)
    assert (left.get("a"), right.get("a")) == ("left", "right")
    right.put("b", "right", 2 * SIZE)
    assert (left.get("a"), right.get("a"), right.get("b")) == (None, "right", "right")


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abcdef"), st.integers(1, 3 * SIZE))))
def test_whatever_is_put_there_never_is_more_than_the_limit(puts: list[tuple[int, str, int]]) -> None:
    cache = Cache(1)
    shelves = [cache.shelf() for _ in range(3)]
    sizes: dict[tuple[int, str], int] = {}
    for number, key, size in puts:
        shelves[number].put(key, size, size)
        sizes[number, key] = size
        kept = [place for place in sizes if shelves[place[0]].get(place[1]) is not None]
        assert sum(PER_STATE + PER_BYTE * sizes[place] for place in kept) <= 1_000_000
        assert all(shelves[place[0]].get(place[1]) == sizes[place] for place in kept)
        assert (number, key) in kept
