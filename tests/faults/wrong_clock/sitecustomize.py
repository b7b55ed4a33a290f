"""A process whose clock is wrong: with this folder on its PYTHONPATH, Python imports this file before anything else.

`WRONG_CLOCK_SECONDS` says by how much. How long something takes is measured right, as where only the date is wrong.
"""

import os
import time
from datetime import datetime, timedelta, tzinfo

from services.runtime import settings

_seconds = int(os.environ["WRONG_CLOCK_SECONDS"])
_time = time.time


class _Wrong(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + timedelta(seconds=_seconds)


settings.datetime = _Wrong  # type: ignore[attr-defined]
time.time = lambda: _time() + _seconds
