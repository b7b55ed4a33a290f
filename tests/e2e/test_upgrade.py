"""Rolling from one version to the next, which knows a field more, while both work side by side."""

import asyncio
import shutil
import subprocess
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest

import services
from schemas.topics import COMMISSIONS, PAYMENTS, REFERRALS
from services.cli.bench.commission import FOLDING, accrued
from services.cli.bench.folding import Output, until_folded
from services.cli.bench.lab import OURS, Lab, Running
from services.cli.bench.load import publish
from services.cli.bench.workload import Decided, Workload
from services.cli.service import Service

pytestmark = [pytest.mark.infra, pytest.mark.kill]

ROOT = Path(services.__file__).parent.parent
LAST_FIELDS = {
    "services/commission/state.py": ("    paid_by: PaidByPartner | None = None\n", '    channel: str = "web"\n'),
    "schemas/events.py": (
        "    trial: Annotated[bool, Field(strict=True)] = False\n",
        "    channel: str | None = None\n",
    ),
}
"""The next version's new fields, each behind the last one that this version knows: of a state, and of an event."""


def _next_version(folder: Path) -> Path:
    for package in ("services", "schemas"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, (last, new) in LAST_FIELDS.items():
        file = folder / name
        text = file.read_text(encoding="utf-8")
        assert text.count(last) == 1
        file.write_text(text.replace(last, last + new), encoding="utf-8")
    return folder


def test_two_versions_side_by_side_decide_the_same_and_either_verifies_it(tmp_path: Path) -> None:
    newer = {"PYTHONPATH": str(_next_version(tmp_path))}
    workload = Workload(6_000, 300)
    records = workload.payments()

    def fold(count: int | None) -> None:
        asyncio.run(publish(lab.settings, PAYMENTS.name, islice(records, count)))
        asyncio.run(until_folded(lab, FOLDING, (COMMISSIONS,), lambda: 0.0))

    with Lab() as lab:
        asyncio.run(publish(lab.settings, REFERRALS.name, workload.referrals()))
        workers = lab.work(FOLDING, 2)
        lab.await_ready(workers)
        fold(2_000)
        workers = _rolled(lab, workers, newer, workers[::2])
        fold(2_000)
        workers = _rolled(lab, workers, newer, [each for each in workers if each.name in WORKERS])
        fold(None)

        async def decided() -> Decided:
            async with Output(lab.settings, COMMISSIONS) as output:
                return Decided.of(workload, await output.values())

        found = asyncio.run(decided())
        assert found.fault(workload.balances(), asyncio.run(accrued(lab.settings, workload))) == ""
        for version in ({}, newer):
            command = [*OURS, "verify", "--service", "commission", "--service", "payouts"]
            environment = lab.environment() | version
            told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
            assert told.returncode == 0, told.stdout + told.stderr
            assert ": 0 differences" in told.stdout


WORKERS = {f"{service.value} worker" for service in FOLDING}


def _rolled(lab: Lab, workers: list[Running], newer: dict[str, str], leaving: Sequence[Running]) -> list[Running]:
    """One after the other is stopped, and the next version is started in its place. Answers who works then."""
    for each in leaving:
        lab.stop([each])
        service = Service(each.name.removesuffix(" worker"))
        ready = lab.folder / f"next-{service.value}-{len(list(lab.folder.glob('next-*')))}.ready"
        fresh = lab.run(
            f"next {each.name}", [*OURS, "worker", service.value], {**newer, "REFSTREAM_READY_FILE": str(ready)}
        )
        workers = [other for other in workers if other is not each] + [fresh]
        lab.await_ready(workers)
    return workers
