"""Rolling from one version to the next, which knows a field more, while both work side by side."""

import asyncio
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import pytest

import services
from schemas.topics import COMMISSIONS, PAYMENTS, REFERRALS
from services.cli.bench.commission import FOLDING, checked
from services.cli.bench.folding import until_folded
from services.cli.bench.lab import OURS, Lab, Running
from services.cli.bench.load import publish
from services.cli.bench.workload import Workload
from services.cli.service import Service

pytestmark = [pytest.mark.infra, pytest.mark.kill]

ROOT = Path(services.__file__).parent.parent
LAST_FIELDS = {
    "services/commission/state.py": ("    paid_by: PaidByPartner | None = None\n", '    channel: str = "web"\n'),
    "schemas/events.py": (
        "    trial: Flag = False\n",
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
        _roll(lab, workers[::2], newer)
        fold(2_000)
        _roll(lab, workers[1::2], newer)
        fold(None)

        _, fault = asyncio.run(checked(lab.settings, workload))
        assert fault == ""
        for version in ({}, newer):
            command = [*OURS, "verify", "--service", "commission", "--service", "payouts"]
            environment = lab.environment() | version
            told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
            assert told.returncode == 0, told.stdout + told.stderr
            assert ": 0 differences" in told.stdout


def _roll(lab: Lab, leaving: Sequence[Running], newer: Mapping[str, str]) -> None:
    """One after the other is stopped, and the next version is started in its place."""
    for each in leaving:
        lab.stop([each])
        lab.await_ready(lab.work([Service(each.name.removesuffix(" worker"))], more=newer))
