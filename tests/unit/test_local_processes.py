"""Parts of the local stack that need no servers: ports, children, and what is started again."""

import json
import socket
import sys
import time
from pathlib import Path

import pytest

from services.cli.unit import Unit
from services.local import jars, ports
from services.local.child import Child
from services.local.refusal import StackRefused
from tests.processes import gone


def test_a_port_is_remembered_while_it_is_free_and_replaced_when_taken(tmp_path: Path) -> None:
    first = ports.choose(tmp_path, {"kafka": 0, "redis": 0})
    assert ports.choose(tmp_path, {"kafka": 0, "redis": 0}) == first
    with socket.socket() as other:
        other.bind(("127.0.0.1", first["kafka"]))
        other.listen()
        second = ports.choose(tmp_path, {"kafka": 0, "redis": 0})
    assert second["kafka"] != first["kafka"]
    assert second["redis"] == first["redis"]
    assert json.loads((tmp_path / "ports.json").read_text()) == second


def test_a_wished_port_is_taken_where_it_is_free_and_never_twice(tmp_path: Path) -> None:
    wish = ports.any_free()
    chosen = ports.choose(tmp_path, {"a": wish, "b": wish})
    assert chosen["a"] == wish
    assert chosen["b"] != wish


def test_a_child_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    child = Child("deaf", [sys.executable, "-c", code], tmp_path / "log")
    while "deaf" not in child.log_tail():
        time.sleep(0.01)
    child.stop(patience_seconds=0.1)
    assert gone(child.pid)
    assert child.exit_code == -9


def test_a_unit_is_started_again_after_a_pause_that_grows(tmp_path: Path) -> None:
    unit = Unit("x", "worker", lambda: Child("x", [sys.executable, "-c", ""], tmp_path / "log"))
    restarts: list[float] = []
    deadline = time.monotonic() + 20
    while len(restarts) < 2 and time.monotonic() < deadline:
        if unit.mend():
            restarts.append(time.monotonic())
        time.sleep(0.01)
    assert unit.deaths == 2
    assert restarts[1] - restarts[0] >= 1.0


def test_jars_that_cannot_be_fetched_are_refused_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jars, "_get", _unreachable)
    with pytest.raises(StackRefused, match="HTTPS_PROXY"):
        jars.classpath(tmp_path)
    assert not list(tmp_path.glob("kafka-*"))  # nothing half-fetched is left behind


def _unreachable(coordinate: str, cache: Path) -> Path:
    raise OSError("Network is unreachable")


def test_a_jar_that_is_not_the_locked_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forged(coordinate: str, cache: Path) -> Path:
        cache.mkdir(exist_ok=True)
        jar = cache / f"{coordinate.replace(':', '-')}.jar"
        jar.write_bytes(b"something else")
        return jar

    monkeypatch.setattr(jars, "_get", forged)
    with pytest.raises(StackRefused, match="SHA-256"):
        jars.classpath(tmp_path)
