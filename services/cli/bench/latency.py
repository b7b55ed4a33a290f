"""`refstream bench latency`: W3, how soon a payment shows in a balance and a withdrawal is decided, under load.

Open loop: what is timed begins at its appointed time, whether or not what began before has ended, and its latency
counts from that time on. So a system that stalls shows the wait of all that should have begun meanwhile.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count

import aiohttp

from schemas.topics import COMMISSIONS, PAYMENTS, REFERRALS
from services.cli.bench.commission import started
from services.cli.bench.folding import Output, until_folded
from services.cli.bench.lab import Lab, Running
from services.cli.bench.load import publish
from services.cli.bench.probes import Api, Probe, prepare
from services.cli.bench.result import Run
from services.cli.bench.workload import Workload
from services.cli.demo.steps import Steps
from services.cli.service import Service

EVERY = tuple(Service)
PROBES, LEAD_SECONDS = 400, 5.0
CAPACITY = "capacity_payments_per_s"
QUANTILES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}


@dataclass(frozen=True, slots=True)
class Options:
    """`capacity`: payments a second, measured where it is 0. `per_second`: payments and withdrawals timed, of each."""

    shares: Sequence[int]
    seconds: float
    capacity: float = 0.0
    per_second: float = 10.0
    customers: int = 50_000
    capacity_payments: int = 100_000


def measure(options: Options, steps: Steps) -> list[Run]:
    """A run for each share of the capacity. All services, and the API, run. Errors: StackRefused."""
    with Lab() as lab:
        with steps.step("workers and API run, partners have money"):
            probes = asyncio.run(prepare(lab.settings, PROBES))
            referrals = Workload(0, options.customers).referrals()
            asyncio.run(publish(lab.settings, REFERRALS.name, referrals))
            workers = lab.work(EVERY)
            lab.await_ready(workers)
            lab.serve()
            asyncio.run(_caught_up(lab))
        published, found = 0, {CAPACITY: options.capacity}
        if not options.capacity:
            published, found = _measured(lab, workers, probes, options, steps)
        runs = []
        for share in options.shares:
            with steps.step(f"{share} % of the capacity for {options.seconds:.0f} s"):
                loaded = _loaded(lab, probes, options, found[CAPACITY] * share / 100, published)
            published += loaded.published
            label = f"{share} % of capacity"
            runs.append(Run(label=label, figures=found | loaded.figures, cpu_seconds=loaded.cpu_seconds))
        return runs


async def _caught_up(lab: Lab) -> None:
    await until_folded(lab, EVERY, (COMMISSIONS,), lambda: 0.0)


# --- capacity -------------------------------------------------------------------------------------------------------


def _measured(
    lab: Lab, workers: list[Running], probes: Sequence[Probe], options: Options, steps: Steps
) -> tuple[int, dict[str, float]]:
    """How many payments were published to find the capacity, and the figures.

    What a backlog is folded at, without the API and the load, is more than lasts with both beside it. So as much is
    offered, and what is decided meanwhile is the capacity.
    """
    with steps.step("folding a backlog") as step:
        backlog = _of_a_backlog(lab, workers, options)
        step.said = f"a backlog is folded at {backlog:,.0f} payments/s"
    with steps.step("measuring the capacity") as step:
        loaded = _loaded(lab, probes, options, backlog, options.capacity_payments)
        capacity = loaded.figures["decided_payments_per_s"]
        step.said = f"the capacity is {capacity:,.0f} payments/s"
    return options.capacity_payments + loaded.published, {"backlog_payments_per_s": backlog, CAPACITY: capacity}


def _of_a_backlog(lab: Lab, workers: list[Running], options: Options) -> float:
    """Payments a second from the first read to the last balance: all are on Kafka before fresh workers start."""
    workload = Workload(options.capacity_payments, options.customers)
    lab.stop(workers)
    asyncio.run(publish(lab.settings, PAYMENTS.name, workload.payments()))
    fresh = lab.work(EVERY)
    folded = asyncio.run(until_folded(lab, EVERY, (COMMISSIONS,), lambda: started(fresh)))
    return workload.count / folded.seconds


# --- one rate -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Loaded:
    """`published`: payments of the workload that are used up."""

    figures: dict[str, float]
    cpu_seconds: dict[str, float]
    published: int


def _loaded(lab: Lab, probes: Sequence[Probe], options: Options, rate: float, first: int) -> _Loaded:
    """Time payments and withdrawals while others are paid at a rate; returns when all of it is folded."""
    seconds = options.seconds + 2 * LEAD_SECONDS
    at_first, before = asyncio.run(_readable(lab)), lab.usage.look()
    load = lab.pace(rate, seconds, options.customers, first)
    figures, meanwhile = asyncio.run(_timed(lab, probes, options))
    cpu = lab.usage.look().since(before)
    lab.stop([load])
    asyncio.run(_caught_up(lab))
    in_all = asyncio.run(_readable(lab)).since(at_first)
    rates = {
        "load_payments_per_s": meanwhile.payments / meanwhile.seconds,
        "decided_payments_per_s": meanwhile.said / meanwhile.seconds / in_all.said * in_all.payments,
    }
    return _Loaded(rates | figures, cpu, int(rate * seconds))


@dataclass(frozen=True, slots=True)
class _Readable:
    """By a moment: payments, and what commission has said of them, which is some more records than payments."""

    seconds: float
    payments: int
    said: int

    def since(self, before: "_Readable") -> "_Readable":
        return _Readable(self.seconds - before.seconds, self.payments - before.payments, self.said - before.said)


async def _readable(lab: Lab) -> _Readable:
    async with Output(lab.settings, PAYMENTS, COMMISSIONS) as output:
        ends, of_payments = await output.readable_each(), lab.settings.partitions
        return _Readable(time.monotonic(), sum(ends[:of_payments]), sum(ends[of_payments:]))


async def _timed(lab: Lab, probes: Sequence[Probe], options: Options) -> tuple[dict[str, float], _Readable]:
    """What payments and withdrawals took, and what became readable in the time in which they began."""

    async def meanwhile() -> _Readable:
        before = await _readable(lab)
        await asyncio.sleep(options.seconds)
        return (await _readable(lab)).since(before)

    await asyncio.sleep(LEAD_SECONDS)
    async with Api(lab.settings, lab.url) as api:
        paid, decided, readable = await asyncio.gather(
            open_loop(api.pay, probes, options.per_second, options.seconds),
            open_loop(api.withdraw, probes[::-1], options.per_second, options.seconds),
            meanwhile(),
        )
    figures = (
        summary("payment_to_balance", paid.seconds)
        | summary("withdrawal", decided.seconds)
        | {"payments_timed": len(paid.seconds), "withdrawals_timed": len(decided.seconds)}
        | {"given_up": paid.failed + decided.failed}
    )
    return figures, readable


# --- open loop ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Timed:
    """`seconds`: from each one's appointed time to its end, of those that failed too."""

    seconds: list[float]
    failed: int


async def open_loop(
    do: Callable[[Probe], Awaitable[bool]], probes: Sequence[Probe], per_second: float, seconds: float
) -> Timed:
    """Begin `per_second` a second, on time, whatever became of those before; returns when all have ended."""
    began = time.monotonic()
    tasks = []
    for number in count():
        appointed = began + number / per_second
        if appointed >= began + seconds:
            break
        await asyncio.sleep(max(0.0, appointed - time.monotonic()))
        tasks.append(asyncio.create_task(_one(do, probes[number % len(probes)], appointed)))
    ended = await asyncio.gather(*tasks)
    return Timed([latency for latency, _ in ended], sum(not succeeded for _, succeeded in ended))


async def _one(do: Callable[[Probe], Awaitable[bool]], probe: Probe, appointed: float) -> tuple[float, bool]:
    try:
        succeeded = await do(probe)
    except (aiohttp.ClientError, TimeoutError):
        succeeded = False
    return time.monotonic() - appointed, succeeded


def summary(name: str, seconds: Sequence[float]) -> dict[str, float]:
    """The quantiles in milliseconds, `NAME_p99_ms`: the least latency that so many have not passed."""
    return {
        f"{name}_{shown}_ms": round(quantile(seconds, share) * 1000, 2) for shown, share in QUANTILES.items() if seconds
    }


def quantile(values: Sequence[float], share: float) -> float:
    """The least of the values that so many of them have not passed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]
