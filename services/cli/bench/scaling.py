"""`refstream bench scaling`: W6, for how long anything stands still while workers come, go, are replaced and die.

Payments are published at a steady rate all the time, by another process. Nothing but pauses is measured: the time in
which a partition of `commissions` gets no record, though every partition is due many a second.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise

from schemas.topics import COMMISSIONS, PAYMENTS, REFERRALS
from services.cli.bench.commission import FOLDING, checked
from services.cli.bench.folding import Output, until_folded
from services.cli.bench.lab import Lab, Running
from services.cli.bench.latency import quantile
from services.cli.bench.load import publish
from services.cli.bench.result import Run
from services.cli.bench.workload import SEED, Workload
from services.cli.demo.steps import Steps
from services.cli.service import Service
from services.runtime.settings import Settings

LOOK_SECONDS = 0.05
STEADY_SECONDS = 3.0
"""So long every partition must have gone on after a change before the next one."""
CHANGE_SECONDS = 25.0
"""More than a change takes with the wait after it, for the load to last."""


@dataclass(frozen=True, slots=True)
class Options:
    """`workers`: of commission, one after the other. `rate`: payments a second. `kills`: with SIGKILL."""

    workers: Sequence[int]
    rate: float
    kills: int
    partitions: int = 8
    customers: int = 10_000

    @property
    def seconds(self) -> float:
        return CHANGE_SECONDS * (len(self.workers) + 2 * max(self.workers) + self.kills)


@dataclass(slots=True)
class Seen:
    """When each partition was seen to have grown, on the monotonic clock; and the whole, second by second."""

    grown: list[list[float]]
    over_time: list[tuple[float, int]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def take(self, before: Sequence[int], now: Sequence[int]) -> None:
        at = time.monotonic()
        for times, was, is_ in zip(self.grown, before, now, strict=True):
            if is_ > was:
                times.append(at)
        if at - self.began >= len(self.over_time):
            self.over_time.append((round(at - self.began, 2), sum(now)))

    def pause(self, since: float) -> float:
        """The longest time between two growths of one partition, the later of them after `since`."""
        now = time.monotonic()
        return max(
            later - earlier
            for times in self.grown
            for earlier, later in pairwise([self.began, *times, now])
            if later >= since
        )

    def is_steady(self, within: float = STEADY_SECONDS, at_most: float = STEADY_SECONDS / 3) -> bool:
        """Whether no partition has stood still for longer than `at_most` seconds in the last `within`."""
        return self.pause(time.monotonic() - within) < at_most


def measure(options: Options, steps: Steps) -> list[Run]:
    """A run for each kind of change, on servers of its own. Errors: StackRefused."""
    workload = Workload(int(options.rate * options.seconds), options.customers)
    with Lab(options.partitions) as lab:
        with steps.step("referrals are folded"):
            asyncio.run(publish(lab.settings, REFERRALS.name, workload.referrals()))
            workers = lab.work([Service.commission], options.workers[0])
            lab.await_ready([*workers, *lab.work([Service.payouts])])
            asyncio.run(until_folded(lab, FOLDING, (COMMISSIONS,), lambda: 0.0))
        load = lab.pace(options.rate, options.seconds, options.customers)
        runs = asyncio.run(_changed(lab, workers, options, steps))
        lab.kill([load])
        with steps.step("every decision and balance held against the program"):
            asyncio.run(_published_again(lab, workload))
            _, fault = asyncio.run(checked(lab.settings, workload))
        return [run.model_copy(update={"fault": fault}) for run in runs]


async def _changed(lab: Lab, workers: list[Running], options: Options, steps: Steps) -> list[Run]:
    seen = Seen([[] for _ in range(options.partitions)])
    watching = asyncio.create_task(_watch(lab.settings, seen))
    try:
        change = _Change(lab, workers, seen, steps)
        await change.until_steady()
        grown = [await change.to(count) for count in options.workers[1:]]
        scaled = Run(
            label=" → ".join(map(str, options.workers)) + " workers",
            figures=_figures(grown),
            over_time=seen.over_time[:],
        )
        left, joined = [], []
        for number in range(1, len(workers) + 1):
            left.append(await change.pause(f"worker {number} of {len(workers)} leaves", change.stop_first))
            joined.append(await change.to(len(workers) + 1))
        killed = [
            await change.pause(f"SIGKILL {number} of {options.kills}", change.kill_any)
            for number in range(1, options.kills + 1)
        ]
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    return [
        scaled,
        Run(label="SIGTERM of one after the other", figures=_figures(left)),
        Run(label="each replaced by a fresh one", figures=_figures(joined)),
        *([Run(label="SIGKILL, replaced at once", figures=_figures(killed))] if killed else []),
    ]


class _Change:
    """What is done to commission's workers, one thing at a time."""

    def __init__(self, lab: Lab, workers: list[Running], seen: Seen, steps: Steps) -> None:
        self._lab, self._workers, self._seen, self._steps = lab, workers, seen, steps
        self._rng = random.Random(SEED)  # noqa: S311 (a seed to repeat)

    async def pause(self, told: str, change: Callable[[], None]) -> float:
        """The longest pause of any partition from a change on, in seconds; it is steady again afterwards."""
        with self._steps.step(told) as step:
            since = time.monotonic()
            await asyncio.to_thread(change)
            await self.until_steady()
            seconds = self._seen.pause(since)
            step.said = f"{told}: {seconds:.2f} s"
        return seconds

    async def to(self, count: int) -> float:
        """The pause while there come to be so many workers."""
        return await self.pause(f"{len(self._workers)} → {count} workers", lambda: self.start(count))

    async def until_steady(self) -> None:
        """Errors: StackRefused where a worker ends that should run."""
        await asyncio.sleep(STEADY_SECONDS)
        while not self._seen.is_steady():
            self._lab.refuse_dead()
            await asyncio.sleep(LOOK_SECONDS)

    def start(self, count: int) -> None:
        """Until there are so many, and all have opened their cells."""
        self._workers += self._lab.work([Service.commission], count - len(self._workers))
        self._lab.await_ready(self._workers)

    def stop_first(self) -> None:
        self._lab.stop([self._workers.pop(0)])

    def kill_any(self) -> None:
        count = len(self._workers)
        self._lab.kill([self._workers.pop(self._rng.randrange(count))])
        self.start(count)


async def _watch(settings: Settings, seen: Seen) -> None:
    async with Output(settings, COMMISSIONS) as output:
        before = await output.readable_each()
        while True:
            now = await output.readable_each()
            seen.take(before, now)
            before = now
            await asyncio.sleep(LOOK_SECONDS)


def _figures(pauses: Sequence[float]) -> dict[str, float]:
    at = {"p50": 0.5, "p99": 0.99, "longest": 1.0}
    shown = {f"pause_{name}_seconds": round(quantile(pauses, share), 2) for name, share in at.items() if pauses}
    return {"times": len(pauses)} | shown


async def _published_again(lab: Lab, workload: Workload) -> None:
    """All of it is published and folded then; what was before comes a second time, and counts once."""
    await publish(lab.settings, PAYMENTS.name, workload.payments())
    await until_folded(lab, FOLDING, (COMMISSIONS,), lambda: 0.0)
