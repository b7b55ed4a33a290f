"""One process that the supervisor keeps running."""

import time
from collections.abc import Callable

from services.local.child import Child

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 10.0
STABLE_SECONDS = 15.0  # who has run this long is forgiven earlier deaths


class Unit:
    """A child that is started again when it ends, after a pause that doubles with each early death.

    `start` starts it and returns at once. `deaths` counts those that came before it was stable.
    """

    def __init__(self, service: str, role: str, start: Callable[[], Child], child: Child | None = None) -> None:
        self.service, self.role, self._start = service, role, start
        self.child = child or start()
        self.deaths = 0
        self._since = time.monotonic()
        self._again_at: float | None = None

    def mend(self) -> bool:
        """Look after it; returns whether it was started again just now. Does not block."""
        now = time.monotonic()
        if self.child.exit_code is None:
            if now - self._since > STABLE_SECONDS:
                self.deaths = 0
            return False
        if self._again_at is None:
            pause = min(FIRST_PAUSE_SECONDS * 2**self.deaths, LONGEST_PAUSE_SECONDS)
            self.deaths += 1
            self._again_at = now + pause
        if now < self._again_at:
            return False
        self.child = self._start()
        self._since, self._again_at = now, None
        return True
