"""`refstream bench http`: W5, reads and commands a second over many connections."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import aiohttp

from schemas.topics import COMMISSIONS
from services.cli.bench.folding import until_folded
from services.cli.bench.lab import Lab
from services.cli.bench.latency import EVERY, summary
from services.cli.bench.probes import Api, Probe, prepare
from services.cli.bench.result import Run
from services.cli.bench.workload import SEED
from services.cli.demo.steps import Steps


@dataclass(frozen=True, slots=True)
class Options:
    connections: int = 100
    seconds: float = 30.0
    partners: int = 2_000


def measure(options: Options, steps: Steps) -> list[Run]:
    """Balances are read, then withdrawals asked for, one after the other on each connection. Errors: StackRefused."""
    with Lab() as lab:
        with steps.step("workers and API run, partners have money"):
            probes = asyncio.run(prepare(lab.settings, options.partners))
            lab.await_ready(lab.work(EVERY))
            lab.serve()
            asyncio.run(until_folded(lab, EVERY, (COMMISSIONS,), lambda: 0.0))
        runs = []
        for name in ("reads", "commands"):
            with steps.step(f"{name} over {options.connections} connections for {options.seconds:.0f} s"):
                runs.append(asyncio.run(_asked(lab, name, probes, options)))
        return runs


async def _asked(lab: Lab, name: str, probes: Sequence[Probe], options: Options) -> Run:
    async with Api(lab.settings, lab.url, options.connections) as api:
        do = {"reads": api.accrued_minor, "commands": api.withdraw}[name]
        before, began = lab.usage.look(), time.monotonic()
        until = began + options.seconds
        loops = [_loop(do, probes, random.Random(SEED + n), until) for n in range(options.connections)]  # noqa: S311
        each = await asyncio.gather(*loops)
        seconds, after = time.monotonic() - began, lab.usage.look()
    latencies = [latency for own, _ in each for latency in own]
    failed = sum(failures for _, failures in each)
    return Run(
        label=f"{name}, {options.connections} connections",
        figures={"requests_per_s": round(len(latencies) / seconds, 1)}
        | summary("request", latencies)
        | {"failed": failed},
        cpu_seconds=after.since(before),
        peak_memory_mb={used: round(memory, 1) for used, memory in after.memory_mb.items()},
        fault=f"{failed} requests failed" if failed else "",
    )


async def _loop(
    do: Callable[[Probe], Awaitable[object]], probes: Sequence[Probe], rng: random.Random, until: float
) -> tuple[list[float], int]:
    """One connection's latencies in seconds, and how many requests failed."""
    latencies, failed = [], 0
    while (began := time.monotonic()) < until:
        try:
            answered = await do(rng.choice(probes))
        except (aiohttp.ClientError, TimeoutError):
            answered = None
        if answered is None or answered is False:
            failed += 1
        else:
            latencies.append(time.monotonic() - began)
    return latencies, failed
