"""Looking at processes that are not ours to wait for."""

from pathlib import Path


def gone(pid: int) -> bool:
    """No such process, or one that has ended and is not reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True
