"""The rounds of one kind: how many faults each has, and in a long run what they gave, written after each of them.

A long run that was broken off goes on behind its last round where the code is the same; a finished one is not repeated.
"""

import os
import platform
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from schemas.faults import PAGE, RESULTS, ROOT, Kind, Machine, Result, Verified, kinds, result_of
from services.local.jars import KAFKA_VERSION

LONG = os.environ.get("REFSTREAM_FAULTS") == "long"
SEED = int(os.environ.get("REFSTREAM_SEED", "1"))
FOLDER = Path(os.environ.get("REFSTREAM_FAULTS_RESULTS") or RESULTS)
FAULTS_A_ROUND = 50
KINDS = {kind.name: kind for kind in kinds()}


@dataclass
class Round:
    """One playing of the journeys under faults, and all that is checked after it."""

    number: int
    times: int
    seed: str
    events: int = 0
    recoveries: list[float] = field(default_factory=list)
    verified: Verified | None = None


def rounds_of(kind: Kind, on: Machine, a_round: int = FAULTS_A_ROUND) -> Iterator[Round]:
    """The rounds that are left to play, each noted when the next is asked for."""
    before = result_of(kind, FOLDER) if LONG else None
    if before and (before.commit, before.seed) != (commit(), SEED):
        before = None
    done = before.times if before else 0
    number = before.rounds if before else 0
    while done < (kind.long if LONG else kind.short):
        number += 1
        times = min(a_round, (kind.long if LONG else kind.short) - done)
        began, played = time.monotonic(), Round(number, times, f"{kind.name} {SEED} {number}")
        yield played
        done += times
        if LONG:
            before = _noted(kind, before, played, time.monotonic() - began, on)


def _noted(kind: Kind, before: Result | None, played: Round, seconds: float, on: Machine) -> Result:
    assert played.verified or not on.kafka
    times = played.times + (before.times if before else 0)
    result = Result(
        kind=kind.name,
        times=times,
        rounds=played.number,
        seed=SEED,
        seconds=round(seconds + (before.seconds if before else 0), 1),
        events=played.events + (before.events if before else 0),
        day=datetime.now(UTC).date().isoformat(),
        commit=commit(),
        finished=times == kind.long,
        verified=played.verified,
        machine=on,
        recoveries_seconds=(
            *(before.recoveries_seconds if before else ()),
            *(round(seconds, 2) for seconds in played.recoveries),
        ),
    )
    write(kind, result)
    return result


def write(kind: Kind, result: Result) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{kind.slug}.json").write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")


def commit() -> str:
    """The commit that is played, with a `+` where the code differs from it; results and their page are no code."""
    head = _git("rev-parse", "--short=12", "HEAD")
    left_out = [f":!{path.relative_to(ROOT)}" for path in (RESULTS, PAGE)]
    return f"{head}+" if _git("status", "--porcelain", "--", ".", *left_out) else head


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def machine(valkey: str | None = None) -> Machine:
    """This machine, with the versions of the servers that were used; `valkey`: None where none were."""
    return Machine(
        cpus=os.cpu_count() or 0,
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        python=platform.python_version(),
        kafka=KAFKA_VERSION if valkey else None,
        valkey=valkey,
    )
