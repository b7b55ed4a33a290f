"""How long the brokers keep a worker's fetches waiting, so that records come in few batches.

A batch costs a worker some 3 ms of CPU, and the brokers half a dozen requests, however small it is: one for each
payment would leave no time for anything else at a tenth of what can be folded. So each batch counts `BATCH_MS`; what
counts more than `AT_ONCE_MS` together has to be waited for, and meanwhile other records come. After a pause the first
record never waits.
On a machine that is full a batch also waits for a core at its every step, and it is small batches that fill it. So one
counts the more, the longer the process waits for a core beside the time in which it has one.
aiokafka has one fetch under way per broker, and a partition whose records were just taken waits for it to come back. So
only one that leaves out no partition may wait long; an idle worker asks twice a second.
"""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

IDLE_WAIT_MS = 500
BATCH_MS, AT_ONCE_MS = 16, 150
LEAST_GATHER_MS, LONGEST_GATHER_MS = 10, 250
GATHERED_BYTES = 256 * 1024
"""With so many bytes a fetch comes back however long it was to wait: a worker that is behind gathers nothing."""

SCHEDULED = Path("/proc/self/schedstat")
MOST_CROWDED, CROWDED_EVERY_SECONDS = 4.0, 1.0

Scheduled = tuple[int, int]
"""For how many nanoseconds the process's first thread, which folds, has run, and has waited for a core."""


def scheduled() -> Scheduled:
    """As Linux counts it; nothing where it is not told."""
    try:
        ran, waited, _ = SCHEDULED.read_text().split()
    except OSError:
        return 0, 0
    return int(ran), int(waited)


class Pace:
    """Sets what aiokafka's fetches ask for. `clock`: seconds."""

    def __init__(
        self,
        fetcher: Any,
        clock: Callable[[], float] = time.monotonic,
        scheduled: Callable[[], Scheduled] = scheduled,
    ) -> None:
        self._fetcher, self._actions_of, self._clock = fetcher, fetcher._get_actions_per_node, clock
        self._owed_until = self._gathers_until = 0.0
        self._gather_ms = LEAST_GATHER_MS
        self._scheduled, self._before, self._looked_at = scheduled, scheduled(), clock()
        self._crowded = 1.0
        fetcher._get_actions_per_node = self._actions

    def fetched(self, batches: int) -> None:
        """Records came, which make so many batches."""
        now = self._clock()
        owed_ms = max(0.0, self._owed_until - now) * 1000 + BATCH_MS * batches * self._crowding(now)
        self._gather_ms = int(min(LONGEST_GATHER_MS, max(LEAST_GATHER_MS, owed_ms - AT_ONCE_MS)))
        self._owed_until = now + min(owed_ms, AT_ONCE_MS + LONGEST_GATHER_MS) / 1000
        self._gathers_until = now + self._gather_ms / 1000

    def _crowding(self, now: float) -> float:
        """How often a batch counts: once while there are cores enough."""
        if now - self._looked_at >= CROWDED_EVERY_SECONDS:
            after = self._scheduled()
            ran, waited = after[0] - self._before[0], after[1] - self._before[1]
            self._crowded = min(MOST_CROWDED, max(1.0, waited / max(1, ran)))
            self._before, self._looked_at = after, now
        return self._crowded

    def _actions(self, assignment: Any) -> Any:
        found = self._actions_of(assignment)
        gathers = bool(self._fetcher._records) or self._clock() < self._gathers_until
        partitions = Counter(map(self._fetcher._select_read_replica, assignment.tps))
        for node, request in found[0]:
            asked = sum(len(of_topic) for _, of_topic in request.topics)
            if gathers or asked < partitions[node]:
                request._max_wait_ms, request._min_bytes = self._gather_ms, GATHERED_BYTES
            else:
                request._max_wait_ms = IDLE_WAIT_MS
        return found
