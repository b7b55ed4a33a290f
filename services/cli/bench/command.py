"""`refstream bench`: its sub-commands. Each measures on a Kafka and a Valkey of its own and takes them down again."""

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.local.refusal import StackRefused

if TYPE_CHECKING:
    from services.cli.bench.result import Result, Run
    from services.cli.demo.steps import Steps

app = typer.Typer()

SMALL_PAYMENTS, SMALL_CUSTOMERS = 20_000, 5_000

Folder = Annotated[Path, typer.Option("--out", help="Folder to write the result to: NAME.json and NAME.svg.")]
Payments = Annotated[int, typer.Option(min=100, help="How many payments; 5 % come a second time.")]
Customers = Annotated[int, typer.Option(min=10, help="How many customers; a partner has 25 of the default.")]
Workers = Annotated[int, typer.Option(min=1, help="Workers of each service.")]
OUT = Path("build/bench")


@app.callback(invoke_without_command=True)
def bench(ctx: typer.Context, out: Folder = OUT) -> None:
    """Measure throughput, latency, growth and recovery with seeded workloads on a real Kafka and Valkey.

    Without a sub-command all of them run at a small size, which takes some minutes: to see that they
    work and what they tell, not for figures to quote. Everything runs in throw-away folders, on free ports, and is gone
    afterwards; the results are JSON files that `refstream bench compare` puts side by side. Exits with 1 when a result
    is not what the program promises.
    """
    _refuse_without_tools()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a topic that was just made may want a second attempt
    signal.signal(signal.SIGTERM, leave)
    if ctx.invoked_subcommand is None:
        _all_small(out)


def leave(*_: object) -> None:
    """End as after Ctrl-C, so that the servers end too; told again, it goes on taking them down."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + signal.SIGTERM)


def _refuse_without_tools() -> None:
    try:
        import aiohttp  # noqa: F401
        import psutil  # noqa: F401
    except ImportError as missing:
        raise StackRefused(f"{missing.name} is not installed: `pip install 'refstream[bench,local]'`") from missing


def _all_small(out: Path) -> None:
    commission(SMALL_PAYMENTS, SMALL_CUSTOMERS, kill=True, rebuild=True, out=out)
    path(1_000, out=out)
    latency([10, 50, 80], 10.0, capacity_payments=SMALL_PAYMENTS, customers=SMALL_CUSTOMERS, out=out)
    growth(SMALL_PAYMENTS, [1_000, 10_000], [1, 2], [4, 16], out=out)
    scaling([1, 2], kills=1, out=out)
    http(seconds=5.0, partners=200, out=out)


@app.command()
def commission(
    payments: Payments = 500_000,
    customers: Customers = 50_000,
    workers: Workers = 1,
    kill: Annotated[
        bool, typer.Option("--kill", help="Then once more, with SIGKILL of every worker in the middle.")
    ] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Then `refstream rebuild`, while no worker runs.")] = False,
    out: Folder = OUT,
) -> None:
    """W1: payments through commission's two hops and the ledger.

    Referrals and payments (5 % sent twice) are on Kafka before fresh workers start. The clock runs from the first
    record that a worker can read to the last output that is readable and the last balance in Redis. Every decision and
    every balance is then held against the program keycrm, worked out from the same payments by another calculation.
    """
    from services.cli.bench.commission import Options, measure

    options = Options(payments, customers, workers, rebuild=rebuild)
    told = f"refstream bench commission --payments {payments} --customers {customers} --workers {workers}"
    told += " --kill" * kill + " --rebuild" * rebuild
    with _reporting("commission", told, out) as (steps, runs):
        runs.append(measure(options, steps))
        if kill:
            runs.append(measure(Options(payments, customers, workers, kill=True), steps))


@app.command()
def latency(
    share: Annotated[list[int] | None, typer.Option(min=1, max=100, help="Percent of the capacity; several.")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="How long each share is timed.")] = 120.0,
    capacity: Annotated[float, typer.Option(min=0, help="Payments a second; 0: it is measured first.")] = 0.0,
    capacity_payments: Annotated[
        int, typer.Option(min=100, help="How large the backlog is that tells the rate to offer for it.")
    ] = 100_000,
    per_second: Annotated[float, typer.Option(min=0.1, help="So many payments and withdrawals are timed.")] = 10.0,
    customers: Customers = 50_000,
    out: Folder = OUT,
) -> None:
    """W3: from a payment's publication to the balance that shows it, and from a withdrawal's POST to its decision.

    All workers and the API run. Another process publishes payments at 10, 50 and 80 % of the capacity, which is what
    is decided a second where more is published, with the API and the load on the same machine. Meanwhile single
    payments and withdrawals are timed over HTTP, each from its appointed time on, whether or not earlier ones have
    ended (open loop). A balance is asked for when its partner's state in Redis has changed, which is looked for every
    10 ms, or more seldom where so many wait that looking would be a load of its own.
    """
    from services.cli.bench.latency import Options, measure

    shares = share or [10, 50, 80]
    told = f"refstream bench latency --seconds {seconds:g} --capacity {capacity:g}"
    told += f" --capacity-payments {capacity_payments} --per-second {per_second:g} --customers {customers}"
    told += "".join(f" --share {each}" for each in shares)
    with _reporting("latency", told, out) as (steps, runs):
        runs += measure(Options(shares, seconds, capacity, per_second, customers, capacity_payments), steps)


@app.command()
def path(
    customers: Annotated[int, typer.Option(min=10, help="How many; each does about eight things.")] = 50_000,
    workers: Workers = 1,
    out: Folder = OUT,
) -> None:
    """W2: clicks, signups, accounts, subscriptions, payments and refunds of all five programs, through all services.

    Eight partners of each program join over HTTP. Then all that their customers do is published, and folded by fresh
    workers of all four services. Every customer must be bound and every payment decided, without a dead letter.
    """
    from services.cli.bench.path import Options, measure

    with _reporting("path", f"refstream bench path --customers {customers} --workers {workers}", out) as (steps, runs):
        runs.append(measure(Options(customers, workers), steps))


@app.command()
def growth(
    payments: Payments = 500_000,
    customers: Annotated[list[int] | None, typer.Option(min=10, help="How many customers; several.")] = None,
    workers: Annotated[list[int] | None, typer.Option(min=1, help="How many workers of each service; several.")] = None,
    partitions: Annotated[list[int] | None, typer.Option(min=1, help="How many partitions; several.")] = None,
    hot_share: Annotated[
        float, typer.Option(min=0, max=1, help="So much is paid by customers of one partner; 0: leave it out.")
    ] = 0.5,
    out: Folder = OUT,
) -> None:
    """W4: throughput and memory with more customers, workers and partitions, and with one partner who has half of all.

    Each option is an axis: give it several times to measure several values, the other axes at the first of theirs.
    By default 10,000, 100,000 and 1,000,000 customers; 1, 2 and 4 workers; 4, 16 and 64 partitions. The referrals are
    folded first; fresh workers then fold the payments, and that is timed. Redis is asked for its size before and after.
    """
    from services.cli.bench.growth import measure, points

    axes = (customers or [10_000, 100_000, 1_000_000], workers or [1, 2, 4], partitions or [4, 16, 64])
    told = f"refstream bench growth --payments {payments} --hot-share {hot_share:g}"
    for name, values in zip(("customers", "workers", "partitions"), axes, strict=True):
        told += "".join(f" --{name} {value}" for value in values)
    with _reporting("growth", told, out) as (steps, runs):
        for point in points(payments, *axes, hot_share):
            runs.append(measure(point, steps))


@app.command()
def scaling(
    workers: Annotated[list[int] | None, typer.Option(min=1, help="Workers of commission; several.")] = None,
    rate: Annotated[float, typer.Option(min=100, help="Payments a second meanwhile.")] = 500.0,
    kills: Annotated[int, typer.Option(min=0, help="How often one is killed.")] = 20,
    partitions: Annotated[int, typer.Option(min=1, help="How many.")] = 8,
    out: Folder = OUT,
) -> None:
    """W6: for how long anything stands still while workers come, go, are replaced and die.

    By default 1, 2 and then 4 workers; each is then stopped by SIGTERM and replaced by a fresh one, one after the
    other; then one of them is killed, again and again. Payments are published all the time. A pause is the longest time
    in which any partition of `commissions` got nothing. At the end every decision and balance must be the program's.
    """
    from services.cli.bench.scaling import Options, measure

    counts = workers or [1, 2, 4]
    told = f"refstream bench scaling --rate {rate:g} --kills {kills} --partitions {partitions}"
    told += "".join(f" --workers {count}" for count in counts)
    with _reporting("scaling", told, out) as (steps, runs):
        runs += measure(Options(counts, rate, kills, partitions), steps)


@app.command()
def http(
    connections: Annotated[int, typer.Option(min=1, help="At once, each with one request at a time.")] = 100,
    seconds: Annotated[float, typer.Option(min=1, help="How long reads, and then commands, are sent.")] = 30.0,
    partners: Annotated[int, typer.Option(min=1, help="About so many is asked.")] = 2_000,
    out: Folder = OUT,
) -> None:
    """W5: balances read and withdrawals asked for per second, over many connections to one API process.

    All workers run, so that every withdrawal is decided within its request. Requests are counted for the rate limits as
    ever, and none is refused. The client is a process of its own, on the same machine.
    """
    from services.cli.bench.http import Options, measure

    told = f"refstream bench http --connections {connections} --seconds {seconds:g} --partners {partners}"
    with _reporting("http", told, out) as (steps, runs):
        runs += measure(Options(connections, seconds, partners), steps)


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="A result's JSON file.", exists=True)],
    after: Annotated[Path, typer.Argument(help="Another one of the same benchmark.", exists=True)],
) -> None:
    """Put two results side by side: every figure that both have, and their ratio."""
    from pydantic import ValidationError

    from services.cli.bench.result import read, show_compared
    from services.cli.demo.steps import Steps

    try:
        first, second = read(before), read(after)
    except ValidationError as error:
        raise typer.BadParameter(f"no result of refstream bench: {error.errors()[0]['msg']}") from None
    if first.benchmark != second.benchmark:
        raise typer.BadParameter(f"one is of {first.benchmark}, the other of {second.benchmark}")
    show_compared(Steps().console, first, second)


@contextmanager
def _reporting(name: str, told: str, out: Path) -> "Iterator[tuple[Steps, list[Run]]]":
    """Runs to be measured in the block; afterwards they are shown and written. Exits with 1 where one is at fault.

    What was measured before a failure, or before it was told to end, is written beside the last whole result.
    """
    from services.cli.bench.result import Run, result, show, write
    from services.cli.demo.steps import Steps

    steps, runs = Steps(), list[Run]()
    steps.console.print(told, style="bold", highlight=False)
    whole = False
    try:
        yield steps, runs
        whole = True
    finally:
        found = result(name if whole else f"{name}.partial", told, runs)
        if runs:
            show(steps.console, found)
            steps.console.print(f"Written to {_written(found, write(found, out))}.", highlight=False)
    if found.fault:
        raise typer.Exit(1)


def _written(found: "Result", file: Path) -> Path:
    """The chart beside the result, where anything was followed over time."""
    from services.cli.bench.chart import rates

    over_time = {run.label: run.over_time for run in found.runs if run.over_time}
    if over_time:
        title = f"{found.benchmark}: records readable per second"
        file.with_suffix(".svg").write_text(rates(title, over_time), encoding="utf-8")
    return file
