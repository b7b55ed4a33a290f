"""Kafka goes back to a backup: refstream says so, folds what is there, and the platform's repeats make it whole."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from schemas.topics import PAYMENTS, REFERRALS
from services.cli.bench.commission import FOLDING, accrued
from services.cli.bench.load import publish
from services.cli.bench.workload import Record, Workload
from services.cli.demo.settled import Watch
from services.cli.state import running_settings

pytestmark = [pytest.mark.infra, pytest.mark.kill]

SETTLED_SECONDS = 120


class Site:
    """A stack with its data in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "services.cli.main", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    def up(self) -> None:
        started = self("up", "--detach")
        assert started.returncode == 0, started.stdout + started.stderr

    def settle(self, topic: str = PAYMENTS.name, records: Iterable[Record] = ()) -> None:
        """Publish, and wait until all is folded."""

        async def settled() -> None:
            await publish(running_settings(), topic, records)
            async with asyncio.timeout(SETTLED_SECONDS), Watch(running_settings(), FOLDING) as watch:
                while not (await watch.behind()).settled:
                    await asyncio.sleep(0.2)

        asyncio.run(settled())

    def accrued(self, workload: Workload) -> dict[str, int]:
        return asyncio.run(accrued(running_settings(), workload))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in [name for name in os.environ if name.startswith("REFSTREAM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("REFSTREAM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("REFSTREAM_PORT", "0")
    made = Site(tmp_path / "data")
    yield made
    made("down")


def test_from_a_backup_of_kafka_all_comes_back_and_what_is_published_again_counts_once(
    site: Site, tmp_path: Path
) -> None:
    workload, kafka, backup = Workload(2_000, 200), site.folder / "kafka", tmp_path / "backup"
    records = list(workload.payments())
    site.up()
    site.settle(REFERRALS.name, workload.referrals())
    site.settle(records=islice(records, 800))
    at_backup = site.accrued(workload)
    assert site("down").returncode == 0
    shutil.copytree(kafka, backup)
    site.up()
    site.settle(records=islice(records, 800, None))
    assert site.accrued(workload) == workload.balances() != at_backup
    assert site("down").returncode == 0

    shutil.rmtree(kafka)
    shutil.copytree(backup, kafka)
    refused = site("up", "--detach")
    assert refused.returncode != 0
    print(refused.stdout + refused.stderr)
    told = (site.folder / "logs" / "commission.log").read_text()
    assert "Kafka has lost records. Restore Kafka; or, to go back to what it holds, empty Redis" in told
    site("down")

    shutil.rmtree(site.folder / "valkey")
    began = time.monotonic()
    site.up()
    site.settle()
    print(f"restored in {time.monotonic() - began:.1f} s")
    assert site.accrued(workload) == at_backup
    site.settle(records=records)
    assert site.accrued(workload) == workload.balances()
    verified = site("verify")
    assert verified.returncode == 0, verified.stdout
