"""The table of faults: what stands there of a long run, and of one that is not over."""

from collections.abc import Callable
from pathlib import Path

import pytest

from schemas import faults
from schemas.faults import Kind, Machine, Result, Verified

KIND = Kind(name="SIGKILL of workers", harm="SIGKILL of a worker", short=10, long=200, goal_seconds=15)
RESULT = Result(
    kind=KIND.name,
    times=200,
    rounds=4,
    seed=1,
    seconds=1500,
    events=12_345,
    day="2026-03-01",
    commit="0123456789ab",
    finished=True,
    verified=Verified(cells=48, records=99_999, differences=0),
    machine=Machine(cpus=2, memory_gb=24, python="3.11.7", kafka="4.1.1", valkey="9.0.0"),
    recoveries_seconds=tuple(float(n) for n in range(1, 101)),
)


Row = Callable[[Result | None], str]


@pytest.fixture
def row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Row:
    """The row of the one kind in the page, with this result."""
    read = faults.result_of
    monkeypatch.setattr(faults, "kinds", lambda: (KIND,))
    monkeypatch.setattr(faults, "result_of", lambda kind: read(kind, tmp_path))

    def of(result: Result | None) -> str:
        if result:
            (tmp_path / f"{KIND.slug}.json").write_text(result.model_dump_json())
        return next(line for line in faults.page().splitlines() if line.startswith(f"| {KIND.harm} |"))

    return of


def test_a_kind_without_a_finished_run_says_so(row: Row) -> None:
    assert row(None).endswith("| not run yet |")
    assert row(RESULT.model_copy(update={"finished": False})).endswith("| not run yet |")


def test_a_finished_run_says_its_figures_and_whether_the_goal_was_met(row: Row) -> None:
    told = row(RESULT)
    for figure in (
        "| 10 | 200 |",
        "4 rounds of seed 1",
        "25.0 min",
        "12,345 events",
        "0 differences in 99,999 records",
    ):
        assert figure in told
    assert "50.0 s (p50), 99.0 s (p99), 100.0 s (longest)" in told
    assert "p99 under 15 s is missed" in told
    assert "is met" in row(RESULT.model_copy(update={"recoveries_seconds": (1.0, 2.0)}))
