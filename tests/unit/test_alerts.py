"""Alerts and dashboard speak of metrics that exist, and each alert has its section in the runbook."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.cli.service import Service
from services.runtime.metrics import METRICS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "refstream.json").read_text())
QUERIES = [query["expr"] for panel in DASHBOARD["panels"] for query in panel.get("targets", ())]
NOT_SHOWN = {"refstream_fold_seconds", "refstream_commits_total", "refstream_records_ignored_total"}
"""Metrics that say little without a question of their own."""
LABELS = {metric.name: set(metric.labels) for metric in METRICS}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_speaks_of_metrics_and_labels_that_exist(rule: dict[str, Any]) -> None:
    shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) - {"job", "instance"}
    assert shown <= _grouped(rule["expr"])


@pytest.mark.parametrize("query", QUERIES)
def test_the_dashboard_speaks_of_metrics_and_labels_that_exist(query: str) -> None:
    assert "refstream_" in query
    _grouped(query)


def test_every_metric_of_workers_and_of_requests_is_on_the_dashboard() -> None:
    shown = {_metric(name) for query in QUERIES for name in re.findall(r"refstream_[a-z_]+", query)}
    assert {metric.name for metric in METRICS} - shown <= NOT_SHOWN


def _metric(name: str) -> str:
    return name if name in LABELS else re.sub("_(bucket|sum|count)$", "", name)


def _grouped(query: str) -> set[str]:
    """The labels by which a query groups; all its metrics exist and have them."""
    names = {_metric(name) for name in re.findall(r"refstream_[a-z_]+", query)}
    assert names <= set(LABELS)
    grouped = {label for by in re.findall(r"by \(([^)]*)\)", query) for label in by.split(", ")} - {"le"}
    assert all(grouped <= LABELS[name] for name in names)
    return grouped


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_has_its_section_in_the_runbook(rule: dict[str, Any]) -> None:
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
    section = RUNBOOK.split(f"\n## {rule['alert']}\n")[1].split("\n## ")[0]
    assert all(f"**{part}**" in section for part in ("Means.", "See more.", "Do."))
    assert rule["labels"]["severity"] in ("page", "ticket")


def test_the_runbook_has_no_section_without_an_alert() -> None:
    assert re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE) == [rule["alert"] for rule in RULES]


def test_every_service_is_scraped() -> None:
    jobs = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    names = {name for job in jobs for found in job["dns_sd_configs"] for name in found["names"]}
    assert names == {f"{service.value}-{role}" for service in Service for role in ("worker", "api")}


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool here: Debian has it in the package prometheus"
)
@pytest.mark.parametrize(
    "command",
    [("check", "config", FOLDER / "prometheus.yml"), ("test", "rules", Path(__file__).parent / "alerts.yml")],
    ids=["the files are valid", "each alert fires when it should"],
)
def test_prometheus_itself_says_that(command: tuple[str | Path, ...]) -> None:
    ended = subprocess.run(["promtool", *command], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_alert_is_tried() -> None:
    tried = re.findall(r"alertname: (\w+)", (Path(__file__).parent / "alerts.yml").read_text())
    assert {rule["alert"] for rule in RULES} == set(tried)
