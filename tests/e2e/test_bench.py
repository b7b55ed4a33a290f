"""`refstream bench` on real servers, at the smallest size: what is measured is also right."""

import pytest

from services.cli.bench import scaling
from services.cli.bench.commission import Options, measure
from services.cli.demo.steps import Steps

pytestmark = [pytest.mark.infra, pytest.mark.kill]


def test_workers_that_are_killed_lose_and_double_nothing_and_redis_can_be_rebuilt() -> None:
    run = measure(Options(payments=8_000, customers=400, kill=True, rebuild=True), Steps())
    assert run.fault == ""
    assert run.figures["missing"] == run.figures["decided_twice"] == 0
    assert 0 < run.figures["output_again_after_seconds"] < run.figures["seconds"]
    hops = run.figures["rebuilt_records_per_s"] / run.figures["rebuilt_payments_per_s"]
    assert 3 < hops < 5, "each is read as a payment, a sale and a commission, and some come twice"
    workers = {"commission worker", "payouts worker"}
    assert workers <= {name for name, spent in run.cpu_seconds.items() if spent > 0}
    assert workers <= {name for name, memory in run.peak_memory_mb.items() if memory > 10}
    seconds = [second for second, _ in run.over_time]
    records = [count for _, count in run.over_time]
    assert seconds == sorted(seconds)
    assert records == sorted(records)
    assert records[-1] >= 8_000


def test_a_worker_that_leaves_and_one_that_joins_cost_a_pause_and_nothing_else() -> None:
    runs = scaling.measure(scaling.Options(workers=[1, 2], rate=200, kills=0, partitions=4, customers=400), Steps())
    assert [run.fault for run in runs] == ["", "", ""]
    assert [run.figures["times"] for run in runs] == [1, 2, 2]
    assert all(0 < run.figures["pause_p50_seconds"] <= run.figures["pause_longest_seconds"] for run in runs)
    assert runs[0].over_time
