"""What running workers show to Prometheus adds up to what the ledger says."""

import json
from collections import Counter

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from schemas.topics import JOURNALS
from tests.conftest import Stack
from tests.e2e.conftest import Running
from tests.journey import journeys
from tests.over_kafka import play

pytestmark = pytest.mark.infra
FOLDED_SECONDS = 120
EARNS = {"commission.accrued": 1, "commission.adjusted": 1, "commission.reversed": -1}


def test_money_adds_up_to_the_ledger(running: Running, stack: Stack) -> None:
    played = play(stack.settings, journeys("metrics."), FOLDED_SECONDS)
    samples = _scraped(running)
    shown: Counter[tuple[str, str]] = Counter()
    for labels, value in samples["refstream_money_minor"]:
        shown[labels["program"], labels["currency"]] += EARNS.get(labels["type"], 0) * int(value)
    partners = {event["data"]["partner_id"] for event in played.events if event["type"] in EARNS}
    booked: Counter[tuple[str, str]] = Counter()
    for partner in partners:
        for book in running.get(f"/payouts/partners/{partner}/balance")["balances"]:
            earned = book["accrued"]["minor"] - book["reversed"]["minor"]
            booked[book["program_id"], book["accrued"]["currency"]] += earned
    assert {at: sum_ for at, sum_ in shown.items() if sum_} == {at: sum_ for at, sum_ in booked.items() if sum_}


def test_every_cell_is_shown_once_and_nothing_is_behind(running: Running, stack: Stack) -> None:
    samples = _scraped(running)
    cells = [(labels["stage"], labels["partition"]) for labels, _ in samples["refstream_cell_epoch"]]
    assert len(cells) == len(set(cells)) == len(JOURNALS) * stack.settings.partitions
    assert {value for _, value in samples["refstream_lag_records"]} == {0}
    assert {value for _, value in samples["refstream_unsent_records"]} == {0}
    timed = {labels["stage"]: value for labels, value in samples["refstream_commit_seconds_count"]}
    assert timed["commission.sales"] > 0


def test_running_workers_are_alive_and_ready(running: Running) -> None:
    for address in _addresses(running):
        for probe in ("healthz", "readyz"):
            assert httpx.get(address.replace("/metrics", f"/{probe}"), timeout=20, trust_env=False).status_code == 200


def _addresses(running: Running) -> list[str]:
    """Where the four workers show their metrics."""
    processes = json.loads(running.refstream("status", "--json").stdout)["processes"]
    found = [process["metrics"] for process in processes if process["metrics"]]
    assert len(found) == 4
    return found


def _scraped(running: Running) -> dict[str, list[tuple[dict[str, str], float]]]:
    """The samples of all four workers."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for address in _addresses(running):
        text = httpx.get(address, timeout=20, trust_env=False).text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found
