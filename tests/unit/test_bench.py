"""`refstream bench` without servers: what it generates, how it counts, what it shows."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from types import MappingProxyType
from typing import Any
from xml.etree import ElementTree

import psutil
import pytest
from typer.testing import CliRunner

from schemas.events import parse_event
from schemas.ids import partition_of
from schemas.topics import COMMISSIONS, PAYMENTS, REFERRALS
from services.cli.bench import capacity, chart, page
from services.cli.bench.command import _reporting as reporting
from services.cli.bench.folding import Folded, Sample
from services.cli.bench.growth import points
from services.cli.bench.latency import open_loop, summary
from services.cli.bench.path import PAYMENTS_EACH, made
from services.cli.bench.path import _partners as partners_of_all_programs
from services.cli.bench.probes import Probe
from services.cli.bench.result import Result, Run, compared, number, read, write
from services.cli.bench.scaling import Seen
from services.cli.bench.usage import Usage, Used
from services.cli.bench.workload import Decided, Record, Workload
from services.cli.main import app
from services.runtime.simulate import World
from tests.worlds import balance, world


def folded(workload: Workload, payments: list[Record] | None = None) -> World:
    """What the services make of a workload, in memory."""
    made_world = world()
    for topic, records in ((REFERRALS, workload.referrals()), (PAYMENTS, payments or workload.payments())):
        for key, value in records:
            made_world.append(topic.name, partition_of(key, made_world.partitions), key.encode(), value)
    return made_world.run()


def said(made_world: World) -> list[bytes]:
    partitions = range(made_world.partitions)
    return [record.value or b"" for number in partitions for record in made_world.log[COMMISSIONS.name, number]]


def accrued(made_world: World, workload: Workload) -> dict[str, int]:
    names = {workload.partner_of(number) for number in range(workload.partners)}
    books = {name: balance(made_world, name, "keycrm") for name in names}
    return {name: book["accrued"] for name, book in books.items() if book}


# --- W1 -------------------------------------------------------------------------------------------------------------


def test_a_workload_is_the_same_every_time_and_readable() -> None:
    first, second = Workload(300, 100), Workload(300, 100)
    assert list(first.payments()) == list(second.payments())
    assert list(first.referrals()) == list(second.referrals())
    assert len(list(first.payments())) == 300 + first.repeated
    assert first.repeated > 0
    for topic, records in ((REFERRALS, first.referrals()), (PAYMENTS, first.payments())):
        for key, value in records:
            assert topic.key(parse_event(value).data) == key


def test_the_services_give_the_balances_that_the_workload_tells_whatever_the_order() -> None:
    workload = Workload(400, 60, partners=2)
    payments = list(workload.payments())
    assert {workload.pays(i) for i in range(400)} == {True, False}, "some lie outside of the customer's 12 months"
    for order in (payments, payments[::-1]):
        outcome = folded(workload, order)
        decided = Decided.of(workload, said(outcome))
        assert decided.fault(workload.balances(), accrued(outcome, workload)) == ""


def test_each_thing_that_can_be_wrong_is_counted() -> None:
    workload = Workload(40, 10, partners=2)
    values = [value for value in said(folded(workload)) if b'"commission.adjusted"' not in value]
    decisions = [value for value in values if b'"pay-' in value]
    other_bytes = decisions[0].replace(b'"source":"/commission"', b'"source":"/somebody"')
    assert other_bytes != decisions[0]
    assert Decided.of(workload, values).missing == 0
    assert Decided.of(workload, decisions[1:]).missing == 1
    again = Decided.of(workload, [*decisions, decisions[0]])
    assert (again.again, again.duplicates) == (1, 0)
    twice = Decided.of(workload, [*decisions, other_bytes])
    assert (twice.again, twice.duplicates) == (0, 1)
    stolen = [value.replace(b'"partner_id":"p00000"', b'"partner_id":"p00001"') for value in decisions]
    wrong = Decided.of(workload, stolen)
    assert wrong.wrong == sum(value != before for value, before in zip(stolen, decisions, strict=True)) > 0
    assert "wrong" in wrong.fault({}, {})
    assert Decided.of(workload, values).fault({"p": 1}, {"p": 2}) == "1 balances differ, one of p"


def test_a_hot_partner_has_its_share_of_all_payments() -> None:
    even, hot = Workload(2_000, 500, partners=50), Workload(2_000, 500, partners=50, hot_share=0.5)

    def of_first(workload: Workload) -> int:
        return sum(workload.partner_of(customer) == "p00000" for customer in workload.customer_of)

    assert of_first(even) < 100
    assert 900 < of_first(hot) < 1_120


# --- W2 -------------------------------------------------------------------------------------------------------------


def test_all_that_customers_of_five_programs_do_is_readable_and_in_the_past() -> None:
    now = 2_000_000_000_000_000
    partners = tuple(partners_of_all_programs(now))
    facts = made(200, partners, {partner.partner_id: f"code-{partner.partner_id}" for partner in partners}, now)
    assert {partner.program_id for partner in partners} == {
        "active-referrals",
        "jupsoft",
        "keycrm",
        "message-help",
        "proxy-credits",
    }
    assert sum(len(records) for records in facts.records.values()) == facts.count
    events = [parse_event(value) for records in facts.records.values() for _, value in records]
    assert max(event.time for event in events) < now
    kinds = [event.type for event in events]
    assert kinds.count("payment.succeeded") == 200 * PAYMENTS_EACH
    assert {"click.recorded", "customer.signed_up", "account.created", "payment.refunded"} <= set(kinds)


# --- counting -------------------------------------------------------------------------------------------------------


def look(at: float, readable: int, unread: int, cpu: float = 0.0, memory: float = 0.0, busy: float = 0.0) -> Sample:
    used = Used(MappingProxyType({"worker": cpu}), MappingProxyType({"worker": memory}), busy, 0.0)
    return Sample(at, readable, unread, used)


def test_the_clock_runs_from_the_first_record_to_the_look_that_found_all() -> None:
    seen = Folded(
        began=10.5,
        samples=[
            look(10.0, 100, 900, cpu=2.0, memory=50),
            look(11.0, 200, 700, cpu=3.0, memory=80),
            look(12.0, 500, 300, cpu=4.0, memory=70),
            look(13.0, 900, 50, cpu=5.0, memory=60),
            look(14.0, 900, 0, cpu=5.5, memory=60, busy=9.0),
            look(15.0, 900, 0, cpu=9.0, memory=60, busy=99.0),
        ],
    )
    assert seen.seconds == 3.5
    assert seen.cpu_seconds == {"worker": 3.5}
    assert seen.peak_memory_mb == {"worker": 80}
    assert seen.others_cpu_seconds == 5.5
    assert seen.over_time == [(0.0, 0), (1.5, 400), (2.5, 800), (3.5, 800)]
    assert seen.warm_rate(800) == 800 * 0.5 / 2.0


def test_cpu_of_a_process_that_has_ended_still_counts() -> None:
    usage = Usage()
    command = [sys.executable, "-c", "import sys\nfor _ in range(10**7): pass\nprint(flush=True)\nsys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        usage.add("worker", process.pid)
        assert process.stdout
        process.stdout.readline()
        before = usage.look()
        process.kill()
    after = usage.look()
    assert after.cpu_seconds["worker"] == before.cpu_seconds["worker"] > 0
    assert before.memory_mb["worker"] > 1
    assert "worker" not in after.memory_mb


def test_children_count_where_that_is_asked_for() -> None:
    usage = Usage()
    usage.add("alone", psutil.Process().pid)
    usage.add("family", psutil.Process().pid, with_children=True)
    says_so_when_it_is_there = [sys.executable, "-c", "print('here', flush=True); input()"]
    with subprocess.Popen(says_so_when_it_is_there, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        memory = usage.look().memory_mb
        process.kill()
    assert memory["family"] > memory["alone"] > 0


# --- latency --------------------------------------------------------------------------------------------------------


async def test_a_stall_shows_in_all_that_should_have_begun_meanwhile() -> None:
    calls = 0

    async def stalls_first(probe: Probe) -> bool:
        nonlocal calls
        calls += 1
        if calls == 1:
            time.sleep(0.3)
        return True

    timed = await open_loop(stalls_first, [Probe(0, "")], per_second=100, seconds=0.5)
    assert len(timed.seconds) == 50
    assert sum(latency > 0.1 for latency in timed.seconds) >= 20


async def test_what_has_not_ended_keeps_nothing_from_beginning_and_failures_are_counted() -> None:
    running = most = 0

    async def slow(probe: Probe) -> bool:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.2)
        running -= 1
        if probe.number:
            raise TimeoutError
        return True

    timed = await open_loop(slow, [Probe(0, ""), Probe(1, "")], per_second=50, seconds=0.2)
    assert most >= 8
    assert timed.failed == 5
    assert len(timed.seconds) == 10


def test_a_quantile_is_the_latency_that_so_many_have_not_passed() -> None:
    thousand = [number / 1000 for number in range(1, 1001)]
    assert summary("read", thousand) == {"read_p50_ms": 500.0, "read_p99_ms": 990.0, "read_p999_ms": 999.0}
    assert summary("read", [0.25]) == {"read_p50_ms": 250.0, "read_p99_ms": 250.0, "read_p999_ms": 250.0}
    assert summary("read", []) == {}


def test_growth_moves_one_axis_at_a_time() -> None:
    found = list(points(1_200, [10, 100], [1, 2], [4, 16], 0.5))
    assert [point.label for point in found] == [
        "10 customers",
        "100 customers",
        "12 payments a customer",
        "50% of one partner",
        "2 workers",
        "16 partitions",
    ]
    for point in found[1:]:
        axes = ("customers", "workers", "partitions", "hot_share")
        assert sum(getattr(point, axis) != getattr(found[0], axis) for axis in axes) == 1, point


# --- capacity -------------------------------------------------------------------------------------------------------


def grown(customers: int, payments: int, label: str = "", more: float = 1.0) -> Run:
    """A run in which a customer took 300 bytes of Redis and a payment 500, `more` times as much."""
    redis, kafka = (300 * customers + 500 * payments) * more, 200 * customers + 2_000 * payments
    figures = {"customers": customers, "payments": payments, "redis_per_customer_bytes": redis / customers}
    figures |= {"kafka_per_customer_bytes": kafka / customers}
    spent = {"commission": 60, "ledger": 30, "kafka": 12, "valkey": 6}
    figures |= {f"{name}_cpu_per_payment_us": us * more for name, us in spent.items()}
    return Run(label=label or f"{customers:,} customers", figures=figures)


def test_what_payments_and_customers_take_is_found_again() -> None:
    model = capacity.Model.fitted([grown(10, 5_000), grown(100, 5_000), grown(1_000, 5_000), grown(500, 6_000)])
    assert round(model.kept["redis"].per_customer, 6) == 300
    assert round(model.kept["redis"].per_payment, 6) == 500
    assert round(model.kept["kafka"].bytes(1_000_000, 12_000_000)) == 200 * 1_000_000 + 2_000 * 12_000_000
    assert model.needs(10_000) == {
        "commission workers": 1,  # 10,000 × 60 µs are 0.6 cores
        "payouts workers": 1,
        "partitions": 4,
        "Redis primaries, for their CPU": 1,
        "cores of Kafka's leaders": 1,
        "Redis, GB more a day": pytest.approx(432),
        "Kafka's disks, GB more a day (3 replicas)": pytest.approx(5_184),
    }
    assert model.needs(1_000_000) | {"commission workers": 100, "partitions": 256} == model.needs(1_000_000)


def test_the_plan_says_how_far_it_is_from_what_was_measured() -> None:
    runs = [grown(10, 5_000), grown(100, 5_000), grown(1_000, 5_000, more=1.2)]
    others = [grown(10, 5_000, "2 workers", more=9), grown(10, 5_000, "50% of one partner", more=9)]
    shown = capacity.page(found("growth", *runs, *others))
    rows = [line for line in shown.splitlines() if ", 5,000 |" in line]
    assert len(rows) == 3, "what differs in more than size says nothing of size"
    assert "-" in rows[2].split(" | ")[3], rows[2]
    assert "| 100 | 10,000 | 1,000,000 |" in shown
    assert "Not measured yet" in capacity.page(None)


# --- results --------------------------------------------------------------------------------------------------------


def found(name: str, *runs: Run) -> Result:
    machine, versions = {"cores": "2"}, {"Kafka": "4.1.1"}
    return Result(
        benchmark=name,
        command=f"refstream bench {name}",
        measured_at="2026-01-01T00:00Z",
        machine=machine,
        versions=versions,
        runs=list(runs),
    )


def test_results_are_written_read_and_compared(tmp_path: Path) -> None:
    slow = found("commission", Run(label="a", figures={"payments_per_s": 50, "only_before": 1}))
    fast = found("commission", Run(label="a", figures={"payments_per_s": 100}), Run(label="b", figures={"x": 1}))
    assert read(write(slow, tmp_path / "before")) == slow
    assert list(compared(slow, fast)) == [("a", "payments/s", 50, 100)]
    after = write(fast, tmp_path / "after")
    shown = CliRunner().invoke(app, ["bench", "compare", str(tmp_path / "before" / "commission.json"), str(after)])
    assert shown.exit_code == 0, shown.output
    assert "2.00" in shown.output
    other = write(found("http"), tmp_path)
    assert CliRunner().invoke(app, ["bench", "compare", str(after), str(other)]).exit_code == 2
    other.write_text(json.dumps({"benchmark": "http"}))
    refused = CliRunner().invoke(app, ["bench", "compare", str(after), str(other)])
    assert refused.exit_code == 2
    assert "no result" in refused.output


@pytest.mark.parametrize("failure", [SystemExit, RuntimeError])
def test_a_run_that_is_broken_off_leaves_the_last_whole_result(tmp_path: Path, failure: type[BaseException]) -> None:
    whole, half = Run(label="a", figures={"x": 2.0}), Run(label="a", figures={"x": 1.0})
    with reporting("commission", "told", tmp_path) as (_, runs):
        runs.append(whole)
    with pytest.raises(failure), reporting("commission", "told", tmp_path) as (_, runs):
        runs.append(half)
        raise failure
    assert read(tmp_path / "commission.json").runs == [whole]
    assert read(tmp_path / "commission.partial.json").runs == [half]


@pytest.mark.parametrize(("value", "shown"), [(0, "0"), (1234.5, "1,234"), (12.34, "12.3"), (1.234, "1.23")])
def test_numbers_have_no_more_digits_than_were_measured(value: float, shown: str) -> None:
    assert number(value) == shown


def test_a_chart_is_well_formed_and_the_same_for_the_same_data() -> None:
    runs: dict[str, list[tuple[float, int]]] = {"a < b & c": [(0, 0), (1.0, 100), (3.0, 500)], "one look": [(0, 0)]}
    drawn = chart.rates("payments", runs)
    assert drawn == chart.rates("payments", runs)
    texts = [element.text for element in ElementTree.fromstring(drawn).iter() if element.text]
    assert {"payments", "a < b & c", "one look"} <= set(texts)
    assert any("200" in text for text in texts), "the highest rate is on the axis"


def measured(**figures: float) -> page.Results:
    usual: dict[str, float] = {"payments_per_s": 100, "warm_payments_per_s": 100}
    peers = {"refstream": 1, "kafka-streams": 3, "faust-memory": 30, "faust-rocksdb": 40, "postgres": 5}
    runs = [Run(label=name, figures={key: value / by for key, value in usual.items()}) for name, by in peers.items()]
    killed = {"output_again_after_seconds": 10.0, "decided_twice": 0, "missing": 0} | figures
    return {
        "peers": found("peers", *runs),
        "commission": found(
            "commission",
            Run(label="5 payments, 5 customers", figures={"commission_cpu_per_payment_us": 90.0}),
            Run(label="5 payments, 5 customers, killed", figures=killed),
        ),
    }


def goals(results: page.Results) -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in page.page(results).splitlines() if line.startswith("| ")]
    return {line[0]: line[1:] for line in lines}


def test_goals_are_judged_by_what_was_measured() -> None:
    shown = goals(measured())
    assert shown["W1 against Kafka Streams, exactly once"][1:] == ["3", "met"]
    assert shown["W1 against Faust with tables, in memory or on disk, whichever is faster"][1:] == ["30", "met"]
    assert shown["CPU of commission's workers per payment, both hops"][1:] == ["90", "not met"]
    assert shown["payments decided twice, or not at all, after it"][1:] == ["0", "met"]
    assert shown["Redis per customer with 12 payments"][1:] == ["not measured yet"]
    assert goals(measured(missing=1))["payments decided twice, or not at all, after it"][1:] == ["1", "not met"]
    assert all(cells[1].strip() == "not measured yet" for cells in goals({}).values() if cells[0] != "goal")


def test_a_pause_is_the_longest_time_in_which_one_partition_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    seen, ends = Seen([[], []]), [0, 0]
    for second in range(1, 31):
        now = float(second)
        before, ends = ends, [ends[0] + 1, ends[1] + (not 10 < second < 18)]
        seen.take(before, ends)
        if second == 16:
            assert seen.pause(since=10.0) == 6.0  # and it lasts
            assert not seen.is_steady(within=3.0, at_most=1.5)
    assert seen.pause(since=10.0) == 8.0
    assert seen.pause(since=18.5) == 1.0
    assert seen.is_steady(within=3.0, at_most=1.5)
    assert [second for second, _ in seen.over_time] == sorted({second for second, _ in seen.over_time})


@pytest.mark.parametrize("command", ["commission", "path", "latency", "growth", "scaling", "http", "compare"])
def test_every_benchmark_tells_what_it_measures(command: str) -> None:
    shown: Any = CliRunner().invoke(app, ["bench", command, "--help"])
    assert shown.exit_code == 0
    assert len(shown.output.splitlines()) > 12
