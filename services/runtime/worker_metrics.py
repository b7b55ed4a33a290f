"""What a worker's open cells show to Prometheus, read from what they hold at the moment of being asked."""

import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from schemas.moments import SECOND
from schemas.topics import DEAD_LETTERS
from services.runtime import metrics, tally
from services.runtime.cell import Cell
from services.runtime.metrics import METRICS, Metric

Highwater = Callable[[str, int], int | None]
"""The offset behind a partition's last record, as far as it was fetched; None where it is not known yet."""
Value = tuple[tuple[str, ...], float]
Family = CounterMetricFamily | GaugeMetricFamily


class CellsShown(Collector):
    """The metrics of the cells that a worker owns at the moment. Asked from a thread of the server's."""

    def __init__(self, cells: Callable[[], Iterable[Cell]], highwater: Highwater) -> None:
        self._cells, self._highwater = cells, highwater

    def describe(self) -> Iterable[Family]:
        return ()

    def collect(self) -> Iterator[Family]:
        values: dict[str, list[Value]] = {metric.name: [] for metric in METRICS if metric.by == "cell"}
        for cell in self._cells():
            for metric, labels, value in _of(cell, self._highwater):
                values[metric.name].append(((cell.stage.name, *labels), value))
        for metric in METRICS:
            if metric.by == "cell":
                family = CounterMetricFamily if metric.kind is Counter else GaugeMetricFamily
                shown = family(metric.name, metric.help, labels=metric.labels)
                for labels, value in values[metric.name]:
                    shown.add_metric(labels, value)
                yield shown


def _of(cell: Cell, highwater: Highwater) -> Iterator[tuple[Metric, tuple[str, ...], float]]:  # type: ignore[type-arg]
    at = str(cell.partition)
    yield metrics.EPOCH, (at,), cell.epoch
    yield metrics.COMMITS, (at,), cell.commits
    yield metrics.UNSENT_RECORDS, (at,), cell.unsent
    yield metrics.WAITING_EVENTS, (at,), cell.waiting
    yield metrics.DUPLICATES, (at,), cell.duplicates
    for topic in cell.stage.reads:
        behind = max(0, (highwater(topic.name, cell.partition) or 0) - cell.position(topic.name))
        folded_at = cell.folded_at.get(topic.name, cell.opened_at)
        yield metrics.LAG_RECORDS, (topic.name, at), behind
        yield metrics.LAG_SECONDS, (topic.name, at), max(0.0, time.time() - folded_at / SECOND) if behind else 0.0
    for why, count in cell.ignored().items():
        yield metrics.IGNORED, (at, why), count
    # Shown from 0 on: what begins at 1 is not seen to grow, and an alert looks for it.
    for topic_name, count in ({DEAD_LETTERS.name: 0} | cell.said()).items():
        yield metrics.SAID, (at, topic_name), count
    for each in cell.tallies():
        shown = metrics.DECIDED if each.what == tally.DECIDED else metrics.MONEY
        yield shown, (at, each.program_id, each.type, each.of), each.total
