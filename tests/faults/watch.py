"""A Prometheus that looks at a refstream, with the shipped alerts in a hurry."""

import json
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml

from services.cli.service import Service
from services.local import ports
from services.local.child import Child
from tests.faults.playground import Ground
from tests.worlds import all_stages

PROMETHEUS = shutil.which("prometheus")
RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "alerts.yml"
HURRY = 6
"""How many times shorter every duration of the rules is: an hour is ten minutes."""
_SECONDS = {"m": 60, "h": 3600}
_CELLS_BEFORE = "max_over_time(count by (stage) (refstream_cell_epoch)[1h:1m])"
"""What RefstreamCellWithoutOwner compares with."""


def hurried(rules: str) -> str:
    """The rules with all of their durations shorter; what they look at, and from when on, stays as it is."""
    return re.sub(r"\b(\d+)([mh])\b", lambda told: f"{int(told[1]) * _SECONDS[told[2]] // HURRY}s", rules)


class Watch:
    """Prometheus' word on what is wrong."""

    def __init__(self, url: str) -> None:
        self._url = url

    def _ask(self, path: str, **query: str) -> Any:
        answer = httpx.get(f"{self._url}{path}", params=query, timeout=10, trust_env=False)
        return answer.raise_for_status().json()["data"]

    def is_ready(self) -> bool:
        """Whether it sees all of refstream, and has for long enough to tell when a cell is gone."""
        try:
            seen = all(target["health"] == "up" for target in self._ask("/api/v1/targets")["activeTargets"])
            return seen and len(self._ask("/api/v1/query", query=hurried(_CELLS_BEFORE))["result"]) == len(all_stages())
        except httpx.HTTPError:
            return False

    def firing(self) -> set[str]:
        alerts = self._ask("/api/v1/alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def until_firing(self, *names: str, seconds: float) -> None:
        """Until each of them has fired, at once or one after the other."""
        deadline, missing = time.monotonic() + seconds, set(names)
        while missing := missing - self.firing():
            assert time.monotonic() < deadline, f"{sorted(missing)} did not fire"
            time.sleep(0.5)


@contextmanager
def watched(ground: Ground, folder: Path) -> Iterator[Watch]:
    """A Prometheus that asks every worker and API of a refstream each second."""
    assert PROMETHEUS
    folder.mkdir()
    (folder / "alerts.yml").write_text(hurried(RULES.read_text()))
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["alerts.yml"],
        "scrape_configs": list(_jobs(ground)),
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = ports.any_free()
    options = {
        "config.file": folder / "prometheus.yml",
        "storage.tsdb.path": folder / "data",
        "web.listen-address": f"127.0.0.1:{port}",
    }
    command = [PROMETHEUS, *(f"--{name}={value}" for name, value in options.items())]
    child = Child("prometheus", command, folder / "prometheus.log", ground.environment)
    try:
        yield Watch(f"http://127.0.0.1:{port}")
    finally:
        child.stop(10)


def _jobs(ground: Ground) -> Iterator[dict[str, Any]]:
    processes = json.loads(ground.refstream("status", "--json").stdout)["processes"]
    workers = [urlsplit(process["metrics"]).netloc for process in processes if process["metrics"]]
    yield {"job_name": "refstream-workers", "static_configs": [{"targets": workers}]}
    for service in Service:
        yield {
            "job_name": f"refstream-{service.value}-api",
            "metrics_path": f"/{service.value}/metrics",
            "static_configs": [{"targets": [urlsplit(ground.url).netloc]}],
        }
