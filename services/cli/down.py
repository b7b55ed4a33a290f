"""`refstream down`: the local stack, stopped."""

import os
import signal
import sys
import time
from pathlib import Path

import typer

from services.cli.state import is_running, read_state
from services.runtime.settings import Settings

PATIENCE_SECONDS = 60.0


def down() -> None:
    """Stop the stack that `up` started with this REFSTREAM_DATA_DIR; returns when its processes have gone.

    The data stay: `up` goes on where it left off.
    """
    data_dir = Settings.load().data_path
    if not is_running(data_dir):
        print("nothing runs")
        return
    if not stop(data_dir):
        print(f"refstream: the stack in {data_dir} did not stop", file=sys.stderr)
        raise typer.Exit(1)
    print("stopped")


def stop(data_dir: Path) -> bool:
    """Ask the supervisor to stop, kill it when the patience is over; its children end with it. False: it still runs."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    state = read_state(data_dir)
    while state is None and is_running(data_dir) and time.monotonic() < deadline:  # it is just starting
        time.sleep(0.1)
        state = read_state(data_dir)
    if state is None:
        return not is_running(data_dir)
    supervisor = next(process.pid for process in state.processes if process.role == "supervisor")
    _signal(supervisor, signal.SIGTERM)
    if not _wait(data_dir, deadline):
        _signal(supervisor, signal.SIGKILL)
    return _wait(data_dir, deadline + PATIENCE_SECONDS)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _wait(data_dir: Path, deadline: float) -> bool:
    while is_running(data_dir):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
