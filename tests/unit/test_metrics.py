"""What a worker shows of its cells: exact, since it is counted in the commit, and no label of a person."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from schemas import events
from schemas.events import PAYLOADS, Event
from schemas.moments import DAY, micros, parse_instant
from schemas.money import Money
from schemas.topics import JOURNALS
from services.runtime import recovery
from services.runtime.cell import Cell
from services.runtime.memory import MemoryStore
from services.runtime.metrics import METRICS
from services.runtime.recovery import MemoryLogReader
from services.runtime.simulate import World
from services.runtime.tally import tallied
from services.runtime.worker_metrics import CellsShown
from tests.worlds import world

START = parse_instant("2025-06-15T00:00:00Z")


def _usd(minor: int) -> Money:
    return Money(minor=minor, currency="USD")


def _history() -> Iterator[Event]:
    yield Event(
        "bound",
        "/attribution",
        START,
        events.ReferralAttributed(
            customer_id="c1",
            partner_id="ann",
            program_id="keycrm",
            program_version=1,
            method="click",
            attributed_at=START,
        ),
    )
    for n in range(3):
        paid = events.PaymentSucceeded(payment_id=f"p{n}", customer_id="c1", amount=_usd(10_000 + n))
        yield Event(f"paid-{n}", "/platform", START + (n + 1) * DAY, paid)
    early = events.PaymentSucceeded(payment_id="early", customer_id="c1", amount=_usd(500))
    yield Event("early", "/platform", START - DAY, early)
    refund = events.PaymentRefunded(payment_id="p0", customer_id="c1", refund_id="r0", amount=_usd(10_000))
    yield Event("refund", "/platform", START + 5 * DAY, refund)


@pytest.fixture(scope="module")
def played() -> World:
    made = world(partitions=2)
    for event in _history():
        made.publish(event)
    unknown = b'{"specversion": "1.0", "id": "1", "source": "/platform", "type": "payment.unheard_of"}'
    made.append("payments", 0, b"c1", unknown)
    return made.run()


def _cells(made: World, *, again: bool = False) -> list[Cell]:
    """An owner for every cell of commission and payouts; `again`: over memories folded anew from the log."""

    async def opened(name: str, partition: int) -> Cell:
        store = MemoryStore() if again else made.stores[name, partition]
        stage = made.stages[name]
        cell = Cell(stage, partition, made.partitions, store, lambda: made.programs, made.stages, made.codec)
        reader = MemoryLogReader(dict(made.log), partition)
        await recovery.opened(cell, reader, reader.tell)
        return cell

    services = ("commission", "payouts")
    return [asyncio.run(opened(*at)) for at in made.stores if made.stages[at[0]].service in services]


LABELS = {metric.name: metric.labels for metric in METRICS if metric.by == "cell"}
Shown = dict[str, dict[tuple[str, ...], float]]


def _shown(cells: Sequence[Cell], highwater: int = 0) -> Shown:
    registry = CollectorRegistry()
    registry.register(CellsShown(lambda: cells, lambda topic, partition: highwater))
    found: Shown = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = tuple(sample.labels[label] for label in LABELS[sample.name])
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_money_and_decisions_are_those_of_the_events_on_the_log(played: World) -> None:
    said = [event.data for event in played.events("commissions")]
    money: Counter[str] = Counter()
    for data in said:
        if isinstance(data, events.CommissionAccrued | events.CommissionReversed):
            money[data.type] += data.amount.minor
    shown = _shown(_cells(played))
    by_type: Counter[str] = Counter()
    for labels, value in shown["refstream_money_minor"].items():
        by_type[labels[3]] += int(value)
        assert labels[2:] == ("keycrm", labels[3], "USD")
    assert {type_: by_type[type_] for type_ in money} == dict(money)
    assert money["commission.accrued"] > money["commission.reversed"] > 0
    decided = {(labels[3], labels[4]): value for labels, value in shown["refstream_decisions_total"].items()}
    assert decided["commission.accrued", ""] == 3
    assert decided["commission.reversed", "refund"] == 1


def test_a_rebuild_gives_the_same_counts(played: World) -> None:
    before, after = _shown(_cells(played)), _shown(_cells(played, again=True))
    own = ("refstream_cell_epoch", "refstream_unsent_records")  # of an owner, and no fact
    assert {n: v for n, v in after.items() if n not in own} == {n: v for n, v in before.items() if n not in own}


def test_lag_is_what_waits_behind_the_last_folded_record(played: World) -> None:
    idle = _shown(_cells(played))
    assert set(idle["refstream_lag_records"].values()) == {0}
    assert set(idle["refstream_lag_seconds"].values()) == {0}
    busy = _shown(_cells(played), highwater=100)
    read = len(played.log["payments", 0])
    assert busy["refstream_lag_records"]["commission.sales", "payments", "0"] == 100 - read


def test_lag_in_seconds_is_the_age_of_the_last_folded_record(played: World) -> None:
    (cell,) = (each for each in _cells(played) if each.name == "commission.sales:0")
    cell.folded_at["payments"] = micros(datetime.now(UTC) - timedelta(seconds=90))
    (age,) = (v for at, v in _shown([cell], highwater=100)["refstream_lag_seconds"].items() if at[1] == "payments")
    assert 90 <= age < 90 + 60


def test_an_owner_that_has_folded_nothing_is_behind_since_it_opened_the_cell(played: World) -> None:
    (cell,) = (each for each in _cells(played) if each.name == "commission.sales:0")
    cell.opened_at = micros(datetime.now(UTC) - timedelta(seconds=90))
    (age,) = (v for at, v in _shown([cell], highwater=100)["refstream_lag_seconds"].items() if at[1] == "payments")
    assert 90 <= age < 90 + 60


def test_dead_letters_are_counted_from_0_on(played: World) -> None:
    """A count that is first shown with 1 has not grown, as Prometheus sees it: the first one would alert nobody."""
    said = _shown(_cells(played))["refstream_records_said_total"]
    assert [count for at, count in said.items() if at[2] == "dead-letters"] == [0] * len(_cells(played))


def test_every_metric_of_the_list_is_shown_with_its_labels_alone(played: World) -> None:
    registry = CollectorRegistry()
    registry.register(CellsShown(lambda: _cells(played), lambda topic, partition: 0))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    shown = {sample.name: set(sample.labels) for family in families for sample in family.samples}
    assert shown == {name: set(labels) for name, labels in LABELS.items()}


def test_the_list_says_each_metric_once_with_a_unit_in_its_name() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
    for metric in METRICS:
        assert re.fullmatch(r"refstream_[a-z_]+", metric.name)
        assert metric.help.endswith(".")
        assert not {"partner_id", "customer_id", "key", "id"} & set(metric.labels)


def test_what_somebody_wrote_is_no_label() -> None:
    rejected = events.WithdrawalRejected(
        withdrawal_id="w", partner_id="ann", program_id="keycrm", amount=_usd(5), reason="Ann's card has expired"
    )
    assert dict(tallied(rejected)) == {
        "decided|withdrawal.rejected|keycrm|": 1,
        "money|withdrawal.rejected|keycrm|USD": 5,
    }


def test_internal_events_and_those_of_no_program_are_not_counted() -> None:
    declined = events.CommissionDeclined(commission_id="com", payment_id="p", customer_id="c", reason="not_referred")
    assert list(tallied(declined)) == []
    assert PAYLOADS["sale.stated"].__module__ == "schemas.internal"


def test_the_journal_is_no_topic_that_is_said(played: World) -> None:
    topics = {labels[2] for labels in _shown(_cells(played))["refstream_records_said_total"]}
    assert "commissions" in topics
    assert not topics & {topic.name for topic in JOURNALS.values()}
