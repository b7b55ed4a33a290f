"""`refstream up` and `down` as a user runs them: a whole stack in the background, mended, looked at, stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from tests.processes import gone

pytestmark = [pytest.mark.infra, pytest.mark.kill]

REST_SECONDS = 5
"""After so long without anything to do every cell has noted that all was sent."""

Refstream = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def refstream(tmp_path: Path) -> Iterator[Refstream]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REFSTREAM_")}
    environment["REFSTREAM_DATA_DIR"] = str(tmp_path)

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "services.cli.main", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)

    yield run
    run("down")


def _status(refstream: Refstream) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(refstream("status", "--json").stdout)
    return status


def _pids(status: dict[str, Any]) -> dict[tuple[str, str], int]:
    return {(process["service"], process["role"]): process["pid"] for process in status["processes"]}


def test_a_stack_comes_up_whole_mends_itself_and_goes_without_a_trace(refstream: Refstream) -> None:
    started = refstream("up", "--detach")
    assert started.returncode == 0, started.stderr
    status = _status(refstream)
    before = _pids(status)
    assert {service for service, role in before if role == "worker"} == {
        "attribution",
        "commission",
        "rewards",
        "payouts",
    }
    assert {row["service"] for row in status["services"]} == {"attribution", "commission", "rewards", "payouts"}
    for service in ("attribution", "commission", "rewards", "payouts"):
        assert httpx.get(f"{status['url']}/{service}/readyz").status_code == 200
    assert refstream("up", "--detach").returncode == 0  # runs already: nothing to do
    assert _pids(_status(refstream)) == before

    os.kill(before["commission", "worker"], signal.SIGKILL)
    deadline = time.monotonic() + 30
    while _pids(_status(refstream)) == before and time.monotonic() < deadline:
        time.sleep(0.2)
    after = _pids(_status(refstream))
    assert {name for name in after if after[name] != before[name]} == {("commission", "worker")}

    assert refstream("down").returncode == 0
    assert all(map(gone, after.values()))
    assert refstream("status").returncode == 1


def test_a_cell_that_remembers_an_owner_who_is_gone_is_opened_anew(refstream: Refstream) -> None:
    """A wrong copy of Redis was in place for a while, where its owner of today opened it less often than before."""
    assert refstream("up", "--detach").returncode == 0
    status = _status(refstream)
    is_ready = f"{status['url']}/attribution/readyz"
    time.sleep(REST_SECONDS)  # a commit would be fenced, and tell it as well
    cell = "{attribution.clicks:0}:meta"
    with redis.Redis.from_url(status["redis"]) as memory, memory.pipeline() as both:
        both.hset(cell, "ready", "another run").hincrby(cell, "epoch", 5).execute()
    deadline = time.monotonic() + 60
    assert httpx.get(is_ready).status_code == 503
    while httpx.get(is_ready).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)
