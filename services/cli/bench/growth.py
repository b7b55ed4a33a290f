"""`refstream bench growth`: W4, what becomes of throughput and memory with more customers, workers and partitions."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from schemas.topics import COMMISSIONS, PAYMENTS, REFERRALS
from services.cli.bench.commission import FOLDING, accrued, cost, started
from services.cli.bench.folding import Folded, until_folded
from services.cli.bench.lab import Lab
from services.cli.bench.load import publish
from services.cli.bench.result import Run
from services.cli.bench.workload import Workload
from services.cli.demo.steps import Steps

PAYMENTS_EACH = 12


@dataclass(frozen=True, slots=True)
class Point:
    """Where the axes are at one measurement."""

    label: str
    payments: int
    customers: int
    workers: int = 1
    partitions: int = 4
    hot_share: float = 0.0


def points(
    payments: int, customers: Sequence[int], workers: Sequence[int], partitions: Sequence[int], hot_share: float
) -> Iterator[Point]:
    """Each axis by itself; the others as they are first named. The first point is what all are compared with."""
    first, one, usual = customers[0], workers[0], partitions[0]
    for number in customers:
        yield Point(f"{number:,} customers", payments, number, one, usual)
    each = max(1, payments // PAYMENTS_EACH)
    yield Point(f"{PAYMENTS_EACH} payments a customer", payments, each, one, usual)
    if hot_share:
        yield Point(f"{hot_share:.0%} of one partner", payments, first, one, usual, hot_share)
    for number in workers[1:]:
        yield Point(f"{number} workers", payments, first, number, usual)
    for number in partitions[1:]:
        yield Point(f"{number} partitions", payments, first, one, number)


def measure(point: Point, steps: Steps) -> Run:
    """Fold the referrals, then the payments, each by fresh workers; between them Redis and Kafka are looked at."""
    workload = Workload(point.payments, point.customers, hot_share=point.hot_share)
    with Lab(point.partitions) as lab:
        empty = asyncio.run(lab.kept())
        with steps.step(f"{point.label}: referrals"):
            asyncio.run(publish(lab.settings, REFERRALS.name, workload.referrals()))
            _folded(lab, point)
            bound = asyncio.run(lab.kept())
        with steps.step(f"{point.label}: payments") as step:
            asyncio.run(publish(lab.settings, PAYMENTS.name, workload.payments()))
            folded = _folded(lab, point)
            paid = asyncio.run(lab.kept())
            is_right = asyncio.run(accrued(lab.settings, workload)) == workload.balances()
            step.said = f"{point.label}: {point.payments:,} payments folded in {folded.seconds:.1f} s"
        figures = {"customers": point.customers, "payments": point.payments} | cost(workload, folded)
        for name in empty:
            figures |= {
                f"{name}_without_payments_per_customer_bytes": (bound[name] - empty[name]) / point.customers,
                f"{name}_per_payment_bytes": (paid[name] - bound[name]) / point.payments,
                f"{name}_per_customer_bytes": (paid[name] - empty[name]) / point.customers,
            }
        return Run(
            label=point.label,
            figures={name: round(value, 3) for name, value in figures.items()},
            cpu_seconds=folded.cpu_seconds,
            peak_memory_mb=folded.peak_memory_mb,
            over_time=folded.over_time,
            fault="" if is_right else "balances differ",
        )


def _folded(lab: Lab, point: Point) -> Folded:
    """What is on Kafka, by workers that are started for it and stopped afterwards."""
    workers = lab.work(FOLDING, point.workers)
    folded = asyncio.run(until_folded(lab, FOLDING, (COMMISSIONS,), lambda: started(workers)))
    lab.stop(workers)
    return folded
