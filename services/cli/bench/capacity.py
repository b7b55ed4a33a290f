"""docs/capacity.md: what so many customers and payments need, worked out from what `refstream bench growth` found."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from services.cli.bench.result import Result, Run, line, number

BUSY = 0.6
"""How much of a core a worker or a Redis should use by itself: the rest is for peaks, and for one that died."""
REPLICAS = 3
DAY_SECONDS = 86_400
RATES = (100, 10_000, 1_000_000)
ALONE = " customers"
"""How the labels of the runs end that differ in the number of customers alone."""
AS_USUAL = "12 payments a customer"

INTRODUCTION = """\
# Capacity

What to plan for, worked out from the result of `refstream bench growth` (docs/benchmarks.md says on which machine) and
written by `make docs`. To plan for other machines, run it there and look again.

A payment costs the same CPU whoever pays it, and adds its rows to Redis and its records to Kafka; a customer adds a
state to Redis and a binding to Kafka. So bytes are two straight lines through what was measured:

    bytes = customers × bytes per customer + payments × bytes per payment
"""

EXPLAINED = f"""\
A worker is one process on one core and is planned to use {BUSY:.0%} of it. A cell (a stage and a partition) has one
worker at a time, so no more workers are of use than there are partitions; here are twice as many, to have room. What
partitions cost: docs/benchmarks.md, growth. A Redis primary runs on one core as well. Kafka's disks are counted with
{REPLICAS} replicas, its cores without the work of followers.

**Memory is what a high rate needs in the end**, not CPU: Redis keeps a row for each payment for as long as the payment
can be refunded, repriced or asked for, and today that is for good: rows are never retired. A rate that is held day
after day asks for as much Redis as it writes. The table says how much that is; where it is more than anybody would buy,
this version is not for it.
"""


@dataclass(frozen=True, slots=True)
class Line:
    """Bytes by customers and payments, least squares of the relative error."""

    per_customer: float
    per_payment: float

    @classmethod
    def through(cls, points: Sequence[tuple[float, float, float]]) -> "Line":
        """`points`: customers, payments, bytes; at least two that are not multiples of each other."""
        weighed = [(customers / found, payments / found) for customers, payments, found in points]
        cc, cp, pp = (sum(a[i] * a[j] for a in weighed) for i, j in ((0, 0), (0, 1), (1, 1)))
        c, p = (sum(a[i] for a in weighed) for i in (0, 1))
        whole = cc * pp - cp * cp
        return cls((c * pp - p * cp) / whole, (p * cc - c * cp) / whole)

    def bytes(self, customers: float, payments: float) -> float:
        return customers * self.per_customer + payments * self.per_payment


@dataclass(frozen=True, slots=True)
class Model:
    """What a payment costs: bytes of each store, and microseconds of CPU of each process."""

    kept: dict[str, Line]
    cpu_us: dict[str, float]

    @classmethod
    def fitted(cls, runs: Sequence[Run]) -> "Model":
        """Of the runs that differ in size alone. CPU: the most that any of them took."""
        kept = {store: Line.through([_point(run, store) for run in runs]) for store in ("redis", "kafka")}
        names = ("commission", "ledger", "kafka", "valkey")
        return cls(kept, {name: max(run.figures[f"{name}_cpu_per_payment_us"] for run in runs) for name in names})

    def needs(self, rate: float) -> dict[str, float]:
        """For so many payments a second, day after day."""
        cores = {name: rate * spent / 1e6 for name, spent in self.cpu_us.items()}
        workers = ceil(cores["commission"] / BUSY)
        a_day = rate * DAY_SECONDS
        return {
            "commission workers": workers,
            "payouts workers": ceil(cores["ledger"] / BUSY),
            "partitions": max(4, 1 << (2 * workers - 1).bit_length()),
            "Redis primaries, for their CPU": ceil(cores["valkey"] / BUSY),
            "cores of Kafka's leaders": ceil(cores["kafka"] / BUSY),
            "Redis, GB more a day": self.kept["redis"].bytes(0, a_day) / 1e9,
            f"Kafka's disks, GB more a day ({REPLICAS} replicas)": REPLICAS * self.kept["kafka"].bytes(0, a_day) / 1e9,
        }


def _point(run: Run, store: str) -> tuple[float, float, float]:
    customers, payments = run.figures["customers"], run.figures["payments"]
    return customers, payments, run.figures[f"{store}_per_customer_bytes"] * customers


def page(growth: Result | None) -> str:
    """The whole page. Pure."""
    runs = [] if growth is None else [run for run in growth.runs if run.label.endswith((ALONE, AS_USUAL))]
    if len(runs) < 3:
        return INTRODUCTION + "\nNot measured yet.\n"
    model = Model.fitted(runs)
    return "\n".join([INTRODUCTION, *_lines(model), *_checked(model, runs), *_needed(model), EXPLAINED])


def _lines(model: Model) -> Iterator[str]:
    yield "| | a customer | a million payments |\n|---|---:|---:|"
    for store, fitted in model.kept.items():
        yield f"| {store.capitalize()} | {fitted.per_customer:,.0f} bytes | {fitted.per_payment / 1e3:,.2f} GB |"
    yield ""
    yield "| | CPU of a payment |\n|---|---:|"
    for name, spent in model.cpu_us.items():
        yield f"| {name} | {number(spent)} µs |"
    yield ""


def _checked(model: Model, runs: Sequence[Run]) -> Iterator[str]:
    yield "## How far the lines are from what was measured\n"
    yield "| customers, payments | Redis, MB measured | by the line | off | Kafka, MB measured | by the line | off |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for run in runs:
        customers, payments, _ = _point(run, "redis")
        cells = [f"{customers:,.0f}, {payments:,.0f}"]
        for store, fitted in model.kept.items():
            found, told = _point(run, store)[2], fitted.bytes(customers, payments)
            cells += [number(found / 1e6), number(told / 1e6), f"{told / found - 1:+.0%}"]
        yield line(*cells)
    yield ""


def _needed(model: Model) -> Iterator[str]:
    yield "## What a rate needs\n"
    needs = [model.needs(rate) for rate in RATES]
    yield line("payments a second", *(f"{rate:,}" for rate in RATES))
    yield "|---|" + "---:|" * len(RATES)
    for name in needs[0]:
        yield line(name, *(number(each[name]) for each in needs))
    yield ""
