"""A disk that is full for a while, Kafka's or Valkey's: in `make faults`, where a small disk can be mounted."""

import random
import subprocess
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.faults.checks import play_all_under, prepared
from tests.faults.playground import WORKERS, Playground
from tests.faults.rounds import KINDS, LONG

pytestmark = [pytest.mark.infra, pytest.mark.kill]

MEGABYTES = {"kafka": 512, "valkey": 96}
DISKS = {"Kafka's disk full": "kafka", "Valkey's disk full": "valkey"}


@pytest.mark.parametrize("kind", DISKS)
def test_a_full_disk_loses_nothing(kind: str, tmp_path: Path) -> None:
    if not LONG:
        pytest.skip("only in `make faults`")
    server = DISKS[kind]

    def fill(ground: Playground, rng: random.Random) -> Collection[str]:
        ground.fill_disk(server, rng.uniform(2, 6))
        return WORKERS

    with _disk(tmp_path / server, MEGABYTES[server]), prepared(tmp_path) as ground:
        play_all_under(ground, KINDS[kind], fill)


@contextmanager
def _disk(folder: Path, megabytes: int) -> Iterator[None]:
    """A small disk in memory. Skips the test where this user may not mount one."""
    folder.mkdir()
    with ExitStack() as until_the_end:
        mounting = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
        mounted = subprocess.run(mounting, capture_output=True, text=True, check=False)
        if mounted.returncode:
            pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
        until_the_end.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
        yield
