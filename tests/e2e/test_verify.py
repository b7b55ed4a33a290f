"""`refstream verify` finds what is wrong in Redis and names it; `refstream rebuild` puts it right, also alone."""

import asyncio
from typing import Any

import pytest

from services import payouts
from services.cli.service import Service
from services.runtime.redis_client import connect
from services.runtime.settings import Settings
from services.runtime.store import tag
from tests.e2e.conftest import Running
from tests.journey import journeys
from tests.over_kafka import check, play

pytestmark = pytest.mark.infra

SERVICES = [service.value for service in Service]
JOURNEYS = [journey for journey in journeys("verify.") if "keycrm" in journey.name]


@pytest.fixture(scope="module")
def played(running: Running) -> Running:
    told = play(running.settings, JOURNEYS)
    for journey in JOURNEYS:
        check(journey, told, running.get)
    return running


def test_what_the_log_gives_is_what_redis_holds(played: Running) -> None:
    before = _last_runs(played)
    verified = played.refstream("verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert ": 0 differences" in verified.stdout
    runs = _last_runs(played)
    assert all(run != former for run, former in zip(runs, before, strict=True))
    assert [run["differences"] for run in runs] == [0] * len(SERVICES)
    assert f"{sum(run['records'] for run in runs)} records of {sum(run['cells'] for run in runs)} cells" in (
        verified.stdout
    )


def test_a_changed_row_a_lost_state_and_a_foreign_key_are_named(played: Running) -> None:
    cell, partner, row = asyncio.run(_tamper(played.settings))
    verified = played.refstream("verify", "--service", "payouts")
    assert verified.returncode == 1
    assert f"rows of {partner} {row}" in verified.stdout
    assert played.get("/payouts/verification")["last"]["differences"] > 0
    assert played.get("/rewards/verification")["last"]["differences"] == 0
    assert "state nobody" in verified.stdout
    assert "Redis has" in verified.stdout and "the log gives" in verified.stdout
    assert cell.strip("{}") in verified.stdout
    rebuilt = played.refstream("rebuild", "--yes", "--service", "payouts")
    assert rebuilt.returncode == 0, rebuilt.stdout + rebuilt.stderr
    assert played.refstream("verify", "--service", "payouts").returncode == 0


def test_a_rebuild_needs_no_worker_and_can_be_interrupted(played: Running) -> None:
    assert played.refstream("down").returncode == 0
    asyncio.run(_interrupted(played.settings))
    rebuilt = played.refstream("rebuild", "--yes", "--service", "commission")
    assert rebuilt.returncode == 0, rebuilt.stdout + rebuilt.stderr
    assert "records" in rebuilt.stdout
    verified = played.refstream("verify", "--service", "commission")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_without_a_word_of_consent_nothing_is_emptied(played: Running) -> None:
    asked = played.refstream("rebuild", "--service", "commission")
    assert asked.returncode == 1
    assert "Aborted" in asked.stdout + asked.stderr


def _last_runs(played: Running) -> list[Any]:
    return [played.get(f"/{service}/verification")["last"] for service in SERVICES]


async def _tamper(settings: Settings) -> tuple[str, str, str]:
    """Change a row of a ledger, drop one of its states, add one of nobody's. Answers where."""
    redis: Any = connect(settings.redis_url())
    try:
        keys = [key.decode() async for key in redis.scan_iter(rf"\{{{payouts.LEDGER.name}:*:rows:verify*")]
        key = sorted(keys)[0]
        cell, _, partner = key.partition(":rows:")
        (row, blob) = sorted((await redis.hgetall(key)).items())[0]
        await redis.hset(key, row, blob[:-1] + bytes([blob[-1] ^ 1]))
        await redis.hset(f"{cell}:state", "nobody", b"\x80")
        return cell, partner, row.decode()
    finally:
        await redis.aclose()


async def _interrupted(settings: Settings) -> None:
    """Leave a cell as a rebuild that was killed at once leaves it: not ready, and almost empty."""
    redis: Any = connect(settings.redis_url())
    try:
        cell = tag("commission.sales", 0)
        await redis.delete(*[f"{cell}:{name}" for name in ("state", "find", "answers", "outbox", "meta")])
        await redis.hset(f"{cell}:meta", mapping={"epoch": 1, "ready": 0})
    finally:
        await redis.aclose()
