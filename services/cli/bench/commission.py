"""`refstream bench commission`: W1, payments through commission's two hops and the ledger, from Kafka to Redis."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.topics import COMMISSIONS, PAYMENTS, REFERRALS
from services.cli.bench.folding import Folded, Output, Sample, until_folded
from services.cli.bench.lab import OURS, Lab, Running
from services.cli.bench.load import publish
from services.cli.bench.result import Run
from services.cli.bench.workload import Decided, Workload
from services.cli.demo.settled import Watch
from services.cli.demo.steps import Steps
from services.cli.service import Service
from services.payouts import LEDGER
from services.runtime.codec import Codec
from services.runtime.redis_client import connect
from services.runtime.redis_reader import RedisReader
from services.runtime.settings import Settings

FOLDING = (Service.commission, Service.payouts)
KILLED_AT = 0.4
"""The share of the payments that is decided when the workers are killed."""
SEEN_AGAIN_SECONDS = 0.2
"""What a worker had sent before it was killed may become readable so much later."""
BOOKS_AT_A_TIME = 500


@dataclass(frozen=True, slots=True)
class Options:
    payments: int
    customers: int
    workers: int = 1
    partitions: int = 4
    hot_share: float = 0.0
    kill: bool = False
    rebuild: bool = False

    @property
    def label(self) -> str:
        told = [f"{self.payments:,} payments, {self.customers:,} customers"]
        told += [f"{self.workers} workers"] if self.workers > 1 else []
        told += ["killed"] if self.kill else []
        return ", ".join(told)


def measure(options: Options, steps: Steps) -> Run:
    """One run on servers of its own. Errors: StackRefused."""
    workload = Workload(options.payments, options.customers, hot_share=options.hot_share)
    with Lab(options.partitions) as lab:
        with steps.step("referrals and payments are on Kafka") as step:
            count = asyncio.run(_load(lab.settings, workload))
            step.said = f"{count:,} records are on Kafka"
        with steps.step("folding") as step:
            killing = _Killing(lab, options)
            workers = killing.workers = lab.work(FOLDING, options.workers)

            def look(sample: Sample) -> None:
                step.left(sample.unread)
                killing.look(sample)

            folded = asyncio.run(until_folded(lab, FOLDING, (COMMISSIONS,), lambda: started(workers), look))
            step.said = f"{options.payments:,} payments folded in {folded.seconds:.1f} s"
        figures = cost(workload, folded) | killing.figures(folded)
        with steps.step("every decision and balance held against the program"):
            decided, fault = asyncio.run(checked(lab.settings, workload))
        figures |= {"missing": decided.missing, "decided_twice": decided.duplicates, "repeated_records": decided.again}
        if options.rebuild:
            seconds = _rebuilt(lab, killing.workers, steps)
            figures["rebuilt_payments_per_s"] = options.payments / seconds
            figures["rebuilt_records_per_s"] = asyncio.run(_read(lab.settings)) / seconds
            fault = fault or asyncio.run(checked(lab.settings, workload))[1]
        return Run(
            label=options.label,
            figures={name: round(value, 3) for name, value in figures.items()},
            cpu_seconds=folded.cpu_seconds,
            peak_memory_mb=folded.peak_memory_mb,
            over_time=folded.over_time,
            fault=fault,
        )


async def _load(settings: Settings, workload: Workload) -> int:
    bound = await publish(settings, REFERRALS.name, workload.referrals())
    return bound + await publish(settings, PAYMENTS.name, workload.payments())


def started(workers: Sequence[Running]) -> float | None:
    """For how long the first of them has had its cells."""
    return max((ago for worker in workers if (ago := worker.ready_seconds) is not None), default=None)


def cost(workload: Workload, folded: Folded) -> dict[str, float]:
    """How fast, and how much of the workers' CPU."""
    count, cpu = workload.count, folded.cpu_seconds
    return {
        "seconds": folded.seconds,
        "payments_per_s": count / folded.seconds,
        "warm_payments_per_s": folded.warm_rate(count),
        "commission_cpu_per_payment_us": cpu[f"{Service.commission.value} worker"] / count * 1e6,
        "ledger_cpu_per_payment_us": cpu[f"{Service.payouts.value} worker"] / count * 1e6,
        "kafka_cpu_per_payment_us": cpu["kafka"] / count * 1e6,
        "valkey_cpu_per_payment_us": cpu["valkey"] / count * 1e6,
        "cpu_of_others_seconds": max(0.0, folded.others_cpu_seconds),
    }


class _Killing:
    """SIGKILL of every worker in the middle, where that is asked for; fresh ones are started at once."""

    def __init__(self, lab: Lab, options: Options) -> None:
        self._lab, self._options = lab, options
        self._killed_at: float | None = None
        self.workers: list[Running] = []

    def look(self, sample: Sample) -> None:
        wanted = self._options.kill and self._killed_at is None
        if wanted and sample.readable >= KILLED_AT * self._options.payments:
            self._lab.kill(self.workers)
            self._killed_at = time.monotonic()
            self.workers = self._lab.work(FOLDING, self._options.workers)

    def figures(self, folded: Folded) -> dict[str, float]:
        if self._killed_at is None:
            return {}
        return output_again(folded, self._killed_at)


def output_again(folded: Folded, killed_at: float) -> dict[str, float]:
    """Seconds from a kill to the next output that is readable; empty where all had been said before."""
    after = [sample for sample in folded.samples if sample.at >= killed_at + SEEN_AGAIN_SECONDS]
    again = next((sample for sample in after if sample.readable > after[0].readable), None)
    return {"output_again_after_seconds": again.at - killed_at} if again else {}


async def checked(settings: Settings, workload: Workload) -> tuple[Decided, str]:
    """What was decided, and what is wrong with it or with the balances in Redis."""
    async with Output(settings, COMMISSIONS) as output:
        decided = Decided.of(workload, await output.values())
    expected = workload.balances()
    return decided, decided.fault(expected, await accrued(settings, workload))


async def accrued(settings: Settings, workload: Workload) -> dict[str, int]:
    """Partner → what its books in Redis say was accrued, in cents."""
    redis = connect(settings.redis_url())
    reader = RedisReader(settings.partitions, redis, Codec.of(settings))
    found: dict[str, int] = {}
    try:
        for start in range(0, workload.partners, BOOKS_AT_A_TIME):
            some = workload.partner_ids[start : start + BOOKS_AT_A_TIME]
            for name, person in zip(some, await reader.states(LEDGER, some), strict=True):
                if person.books:
                    found[name] = sum(book.sums.accrued for book in person.books)
    finally:
        await redis.aclose()
    return found


# --- rebuild --------------------------------------------------------------------------------------------------------


def _rebuilt(lab: Lab, workers: list[Running], steps: Steps) -> float:
    """Seconds that `refstream rebuild` takes, of the whole command, while no worker runs. Errors: StackRefused."""
    with steps.step("rebuilding") as step:
        lab.stop(workers)
        began = time.monotonic()
        named = [part for service in FOLDING for part in ("--service", service.value)]
        lab.finish(lab.run("rebuild", [*OURS, "rebuild", "--yes", *named], with_children=True))
        seconds = time.monotonic() - began
        step.said = f"refstream rebuild folded all of it again in {seconds:.1f} s"
    return seconds


async def _read(settings: Settings) -> int:
    async with Watch(settings, FOLDING) as watch:
        return await watch.read()
