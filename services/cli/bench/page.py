"""What docs/ says of the results in bench/results: the goals beside what was measured, and what to plan for."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from services.cli.bench import capacity
from services.cli.bench.result import Result, Run, line, number, read, rows

ROOT = Path(__file__).parent.parent.parent.parent
RESULTS = ROOT / "bench" / "results"
PAGE, CAPACITY = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "capacity.md"
ORDER = ("commission", "peers", "latency", "growth", "path", "scaling", "http")
Results = Mapping[str, Result]

INTRODUCTION = """\
# Benchmarks

Written by `make docs` from the results in `bench/results`; what a figure means is said by `refstream bench --help` and,
for the peers, at the top of `bench/peers/run.py`. To measure again, on an idle machine:

```
refstream bench commission --kill --rebuild --out bench/results
refstream bench path --out bench/results
refstream bench latency --out bench/results
refstream bench growth --out bench/results
refstream bench scaling --out bench/results
refstream bench http --out bench/results
make bench-peers ARGS='--kill --out bench/results'
make docs
```

Everything is generated before a clock starts or by another process, from one seed, and runs on a Kafka and a Valkey on
the same machine as the workers. Single figures move with whatever else a machine does: peers are therefore measured in
turns, and `cpu of others seconds` says how much CPU went to processes that are not part of a run, the measuring one
among them.
"""


@dataclass(frozen=True, slots=True)
class Goal:
    """`measured` finds the figure, or raises LookupError where it was not measured. `met` judges it."""

    name: str
    wanted: str
    measured: Callable[[Results], float]
    met: Callable[[float], bool]


def _run(results: Results, benchmark: str, fits: Callable[[str], bool]) -> Run:
    """Errors: LookupError."""
    for run in results[benchmark].runs:
        if fits(run.label):
            return run
    raise LookupError(benchmark)


def _figure(benchmark: str, label: str, name: str) -> Callable[[Results], float]:
    """A figure of the run with that label, or, where the label begins with `…`, of the first one that ends so."""

    def fits(own: str) -> bool:
        return own.endswith(label[1:]) if label.startswith("…") else own == label

    return lambda results: _run(results, benchmark, fits).figures[name]


def _ratio(above: Callable[[Results], float], below: Callable[[Results], float]) -> Callable[[Results], float]:
    return lambda results: above(results) / below(results)


def _most(*figures: Callable[[Results], float]) -> Callable[[Results], float]:
    return lambda results: max(figure(results) for figure in figures)


def _sum(*figures: Callable[[Results], float]) -> Callable[[Results], float]:
    return lambda results: sum(figure(results) for figure in figures)


def _peer(name: str, figure: str = "payments_per_s") -> Callable[[Results], float]:
    return _figure("peers", name, figure)


def _memory(results: Results) -> float:
    """The largest worker's."""
    peak = _run(results, "growth", lambda label: label == MILLION).peak_memory_mb
    return max(memory for name, memory in peak.items() if name.endswith("worker"))


def _less(name: str, than: int, unit: str, measured: Callable[[Results], float]) -> Goal:
    return Goal(name, f"less than {than:,} {unit}", measured, lambda x: x < than)


MILLION, TEN_THOUSAND = "1,000,000 customers", "10,000 customers"
ALONE, KILLED, HALF = "… customers", "…, killed", "50 % of capacity"
RATE = "payments_per_s"
LEFT, JOINED, KILLED_ONE = "SIGTERM of one after the other", "each replaced by a fresh one", "SIGKILL, replaced at once"

GOALS = (
    Goal(
        "W1 against Kafka Streams, exactly once",
        "2 × or more",
        _ratio(_peer("refstream"), _peer("kafka-streams")),
        lambda x: x >= 2,
    ),
    Goal(
        "the same, each in the second half of its run, when it is warm",
        "1.2 × or more",
        _ratio(_peer("refstream", f"warm_{RATE}"), _peer("kafka-streams", f"warm_{RATE}")),
        lambda x: x >= 1.2,
    ),
    Goal(
        "W1 against Faust with tables, in memory or on disk, whichever is faster",
        "20 × or more",
        _ratio(_peer("refstream"), _most(_peer("faust-memory"), _peer("faust-rocksdb"))),
        lambda x: x >= 20,
    ),
    Goal(
        "W1 against a PostgreSQL worker", "3 × or more", _ratio(_peer("refstream"), _peer("postgres")), lambda x: x >= 3
    ),
    Goal(
        "output again after SIGKILL of every worker",
        "within 15 s",
        _figure("commission", KILLED, "output_again_after_seconds"),
        lambda x: x < 15,
    ),
    Goal(
        "payments decided twice, or not at all, after it",
        "0",
        _sum(_figure("commission", KILLED, "decided_twice"), _figure("commission", KILLED, "missing")),
        lambda x: x == 0,
    ),
    _less(
        "CPU of commission's workers per payment, both hops",
        40,
        "µs",
        _figure("commission", ALONE, "commission_cpu_per_payment_us"),
    ),
    Goal(
        "rebuilding into an empty Redis against folding it first",
        "1 × or more",
        _ratio(_figure("commission", ALONE, f"rebuilt_{RATE}"), _figure("commission", ALONE, RATE)),
        lambda x: x >= 1,
    ),
    Goal(
        "records folded again in a rebuild, all stages",
        "20,000 a second or more",
        _figure("commission", ALONE, "rebuilt_records_per_s"),
        lambda x: x >= 20_000,
    ),
    _less(
        "payment to balance at half of the capacity, p99",
        250,
        "ms",
        _figure("latency", HALF, "payment_to_balance_p99_ms"),
    ),
    _less(
        "withdrawal asked for to decided at half of the capacity, p99",
        100,
        "ms",
        _figure("latency", HALF, "withdrawal_p99_ms"),
    ),
    _less("a worker's memory with 1,000,000 customers", 300, "MB", _memory),
    _less(
        "Redis per customer with 12 payments",
        1024,
        "bytes",
        _figure("growth", capacity.AS_USUAL, "redis_per_customer_bytes"),
    ),
    Goal(
        "throughput with 1,000,000 customers against 10,000",
        "0.8 × or more",
        _ratio(_figure("growth", MILLION, RATE), _figure("growth", TEN_THOUSAND, RATE)),
        lambda x: x >= 0.8,
    ),
    _less(
        "longest pause of any partition when a worker leaves by SIGTERM",
        2,
        "s",
        _figure("scaling", LEFT, "pause_longest_seconds"),
    ),
    _less(
        "longest pause of any partition when a fresh worker joins",
        5,
        "s",
        _figure("scaling", JOINED, "pause_longest_seconds"),
    ),
    _less(
        "pause of any partition after SIGKILL of a worker, p99",
        15,
        "s",
        _figure("scaling", KILLED_ONE, "pause_p99_seconds"),
    ),
    Goal(
        "throughput with half of all paid by one partner's customers against evenly",
        "0.7 × or more",
        _ratio(_figure("growth", "50% of one partner", RATE), _figure("growth", TEN_THOUSAND, RATE)),
        lambda x: x >= 0.7,
    ),
)


def page(results: Results) -> str:
    """The whole page. Pure."""
    parts = [INTRODUCTION, "## Goals\n", "\n".join(_goals(results)) + "\n"]
    for name in ORDER:
        if name in results:
            parts += _chapter(results[name])
    return "\n".join(parts)


def _goals(results: Results) -> Iterator[str]:
    yield "| what | goal | measured | |"
    yield "|---|---|---|---|"
    for goal in GOALS:
        try:
            value = goal.measured(results)
        except (LookupError, ZeroDivisionError):
            yield f"| {goal.name} | {goal.wanted} | not measured yet | |"
        else:
            yield f"| {goal.name} | {goal.wanted} | {number(value)} | {'met' if goal.met(value) else 'not met'} |"


def _chapter(result: Result) -> Iterator[str]:
    yield f"## {result.benchmark}\n"
    yield f"`{result.command}`\n"
    machine = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    versions = ", ".join(f"{name} {value}" for name, value in result.versions.items())
    yield f"Measured {result.measured_at}; {machine}; {versions}.\n"
    yield "\n".join(_table(result)) + "\n"
    if result.fault:
        yield f"**Not as it must be:** {result.fault}\n"
    if any(run.over_time for run in result.runs):
        yield f"![records readable per second](../bench/results/{result.benchmark}.svg)\n"


def _table(result: Result) -> Iterator[str]:
    every = [rows(run) for run in result.runs]
    yield line("", *(run.label for run in result.runs))
    yield "|---|" + "---:|" * len(every)
    for name in dict.fromkeys(name for each in every for name in each):
        yield line(name, *(number(each[name]) if name in each else "" for each in every))


def files() -> dict[Path, str]:
    """The pages that follow from the results, with their text."""
    results = {found.benchmark: found for found in (read(file) for file in sorted(RESULTS.glob("*.json")))}
    return {PAGE: page(results), CAPACITY: capacity.page(results.get("growth"))}
