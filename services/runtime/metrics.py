"""Every metric of refstream, in one list with its meaning. No label holds a person's id: there would be no end of them.

What an API counts, and how long things take, is of the process and starts at 0 with it. What a worker shows of its
cells (`worker_metrics.py`) is read from what they have committed: it goes on where it was, whoever owns the cell, and a
rebuild gives the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

M = TypeVar("M", Counter, Gauge, Histogram)
Shown = Literal["api", "worker", "cell"]


@dataclass(frozen=True)
class Metric(Generic[M]):
    """One metric. `by`: who shows it; an API or a worker from what it counts, a worker from what a cell holds."""

    kind: type[M]
    by: Shown
    name: str
    help: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()


_UP_TO_10_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

HTTP_REQUESTS = Metric(
    Counter,
    "api",
    "refstream_http_requests_total",
    "Requests answered, by route template, method and status.",
    ("service", "route", "method", "status"),
)
HTTP_REQUEST_SECONDS = Metric(
    Histogram,
    "api",
    "refstream_http_request_seconds",
    "Time from a request's first byte to the end of its answer.",
    ("service", "route", "method"),
    _UP_TO_10_S,
)
COMMANDS = Metric(
    Counter,
    "api",
    "refstream_commands_total",
    "Commands written, by type and outcome: done, pending (none after 5 s) or the code of the refusal.",
    ("service", "type", "outcome"),
)
BATCH_RECORDS = Metric(
    Histogram,
    "worker",
    "refstream_batch_records",
    "Records that one commit took in.",
    ("stage",),
    (1, 5, 20, 100, 500, 2_000),
)
FOLD_SECONDS = Metric(
    Histogram,
    "worker",
    "refstream_fold_seconds",
    "Time to read, load, fold and commit one batch.",
    ("stage",),
    _UP_TO_10_S,
)
COMMIT_SECONDS = Metric(
    Histogram, "worker", "refstream_commit_seconds", "Time of one commit's script in Redis.", ("stage",), _UP_TO_10_S
)
PUBLISH_SECONDS = Metric(
    Histogram,
    "worker",
    "refstream_publish_seconds",
    "Time until Kafka has all records of one commit.",
    ("stage",),
    _UP_TO_10_S,
)
OPENED = Metric(
    Counter,
    "worker",
    "refstream_cells_opened_total",
    "Cells taken over: at a start, a rebalance, or anew after Redis lost something.",
    ("stage",),
)
REBUILT_RECORDS = Metric(
    Counter,
    "worker",
    "refstream_rebuilt_records_total",
    "Records folded again since Redis lacked what they had led to.",
    ("stage",),
)
LOST = Metric(
    Counter,
    "worker",
    "refstream_store_losses_total",
    "How often a worker saw that Redis had lost what was committed.",
    ("stage",),
)
EPOCH = Metric(
    Gauge,
    "cell",
    "refstream_cell_epoch",
    "An open cell's epoch: one more with each owner. One worker shows it for each stage and partition.",
    ("stage", "partition"),
)
LAG_RECORDS = Metric(
    Gauge,
    "cell",
    "refstream_lag_records",
    "Records of a topic that the cell has not folded yet.",
    ("stage", "topic", "partition"),
)
LAG_SECONDS = Metric(
    Gauge,
    "cell",
    "refstream_lag_seconds",
    "Age of the last folded event, or since the cell was opened, where more wait; 0 where none does.",
    ("stage", "topic", "partition"),
)
UNSENT_RECORDS = Metric(
    Gauge,
    "cell",
    "refstream_unsent_records",
    "Records that are decided and not yet seen to be on the log.",
    ("stage", "partition"),
)
WAITING_EVENTS = Metric(
    Gauge,
    "cell",
    "refstream_waiting_events",
    "Events that wait for others: a payment for its signup, a refund for its payment.",
    ("stage", "partition"),
)
COMMITS = Metric(Counter, "cell", "refstream_commits_total", "Batches committed.", ("stage", "partition"))
DUPLICATES = Metric(
    Counter,
    "cell",
    "refstream_duplicates_dropped_total",
    "Records that a cell was sent again after a fault, and dropped.",
    ("stage", "partition"),
)
IGNORED = Metric(
    Counter,
    "cell",
    "refstream_records_ignored_total",
    "Records that were nothing to the stage, and why: of a type that it does not know, another stage's.",
    ("stage", "partition", "why"),
)
SAID = Metric(
    Counter,
    "cell",
    "refstream_records_said_total",
    "Records decided, by topic; those of the topic dead-letters could not be read.",
    ("stage", "partition", "topic"),
)
DECIDED = Metric(
    Counter,
    "cell",
    "refstream_decisions_total",
    "Events decided, by program, type and reason.",
    ("stage", "partition", "program", "type", "reason"),
)
MONEY = Metric(
    Gauge,
    "cell",
    "refstream_money_minor",
    "Sum of the amounts of all events of a type, in minor units of the currency. Adds up to the ledger's.",
    ("stage", "partition", "program", "type", "currency"),
)

METRICS: tuple[Metric[Counter] | Metric[Gauge] | Metric[Histogram], ...] = (
    HTTP_REQUESTS,
    HTTP_REQUEST_SECONDS,
    COMMANDS,
    BATCH_RECORDS,
    FOLD_SECONDS,
    COMMIT_SECONDS,
    PUBLISH_SECONDS,
    OPENED,
    REBUILT_RECORDS,
    LOST,
    EPOCH,
    LAG_RECORDS,
    LAG_SECONDS,
    UNSENT_RECORDS,
    WAITING_EVENTS,
    COMMITS,
    DUPLICATES,
    IGNORED,
    SAID,
    DECIDED,
    MONEY,
)


PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
_SHOWN_BY = {"api": "APIs", "worker": "workers", "cell": "workers, of each cell that they own"}


def page() -> str:
    """The text of docs/metrics.md."""
    text = """# Metrics

APIs show theirs at `/<service>/metrics`, which the edge does not pass on; workers at `/metrics` of
`REFSTREAM_METRICS_PORT`, beside `/healthz` (its event loop moves) and `/readyz` (its cells are open). A local stack
chooses ports: `refstream status --json` names them. What is of a cell goes on where it was, whoever owns it, since it
is committed with what it counts: sums over all workers are exact. Generated by `make docs`.

| metric | kind | labels | shown by | meaning |
|---|---|---|---|---|
"""
    for each in METRICS:
        kind, labels = each.kind.__name__.lower(), ", ".join(each.labels)
        text += f"| `{each.name}` | {kind} | {labels} | {_SHOWN_BY[each.by]} | {each.help} |\n"
    return text


class Metrics:
    """What one process counts. Each has its own registry, so that several can live in one process of the tests."""

    def __init__(self, by: Shown) -> None:
        self.registry = CollectorRegistry()
        self._made = {metric.name: _made(metric, self.registry) for metric in METRICS if metric.by == by}

    def __getitem__(self, metric: Metric[M]) -> M:
        return cast(M, self._made[metric.name])


def _made(
    metric: Metric[Counter] | Metric[Gauge] | Metric[Histogram], registry: CollectorRegistry
) -> Counter | Gauge | Histogram:
    labels: Sequence[str] = metric.labels
    if metric.kind is Histogram:
        return Histogram(metric.name, metric.help, labels, buckets=metric.buckets, registry=registry)
    return metric.kind(metric.name, metric.help, labels, registry=registry)
