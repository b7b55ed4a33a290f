"""The states that a process has at hand, of all its cells together: those that were used last, within a limit."""

from collections import OrderedDict
from typing import Any

CACHE_MB = 32
PER_STATE, PER_BYTE = 600, 7
"""Bytes of memory that a state takes as objects, and each of its encoded bytes: so it is, within a fifth, for customers
without payments, with 1 and with 10."""


class Cache:
    """`megabytes`: about so much memory for the states of all shelves."""

    def __init__(self, megabytes: int = CACHE_MB) -> None:
        self._left = megabytes * 1_000_000
        self._states: OrderedDict[tuple[int, str], tuple[Any, int]] = OrderedDict()
        self._shelves = 0

    def shelf(self) -> "Shelf":
        """A new one, empty. What lies on one that nobody uses any more gives way to what is used."""
        self._shelves += 1
        return Shelf(self, self._shelves)

    def get(self, place: tuple[int, str]) -> Any | None:
        found = self._states.get(place)
        if found is None:
            return None
        self._states.move_to_end(place)
        return found[0]

    def put(self, place: tuple[int, str], state: Any, size: int) -> None:
        _, before = self._states.pop(place, (None, 0))
        memory = PER_STATE + PER_BYTE * size
        self._states[place] = state, memory
        self._left += before - memory
        while self._left < 0:
            _, (_, freed) = self._states.popitem(last=False)
            self._left += freed


class Shelf:
    """What a cell has in the cache, by key."""

    def __init__(self, cache: Cache, number: int) -> None:
        self._cache, self._number = cache, number

    def get(self, key: str) -> Any | None:
        """The state, or None where it has to be loaded."""
        return self._cache.get((self._number, key))

    def put(self, key: str, state: Any, size: int) -> None:
        """A state as the store has it. `size`: its bytes there."""
        self._cache.put((self._number, key), state, size)
