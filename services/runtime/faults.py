"""Named points between two steps of the loop, at which a test can end or freeze a real worker.

`REFSTREAM_FAULT=kill@committed:3` ends the process with SIGKILL the third time it comes to `committed`;
`stop@folded:1` freezes it with SIGSTOP there. Without the setting a point does nothing.
"""

import os
import signal
from typing import Literal, get_args

Point = Literal["fetched", "loaded", "folded", "committed", "journaled", "half_sent", "sent", "trimmed"]
POINTS: tuple[Point, ...] = get_args(Point)

_armed = os.environ.get("REFSTREAM_FAULT", "")
_left = int(_armed.partition(":")[2] or 1)


def reach(point: Point, stage: str) -> None:
    """Say that the loop of a stage is at this point. May not return."""
    global _left
    if not _armed:
        return
    action, _, where = _armed.partition(":")[0].partition("@")
    if where not in (point, f"{stage}.{point}"):
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)
