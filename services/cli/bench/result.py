"""What a benchmark finds: one result of several runs, as JSON, as a table, and beside another one."""

import os
import platform
import sys
import sysconfig
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table

from services.local.jars import KAFKA_VERSION

SHOWN_LIBRARIES = ("refstream", "faust-streaming", "aiokafka", "redis", "uvloop", "fastapi")


class Run(BaseModel):
    """One measurement. A figure's unit is the last word of its name, `_per_s` is a rate; `cpu_seconds` and
    `peak_memory_mb` are by process; `over_time` holds seconds from the start and records readable by then."""

    model_config = ConfigDict(frozen=True)
    label: str
    figures: dict[str, float]
    cpu_seconds: dict[str, float] = {}
    peak_memory_mb: dict[str, float] = {}
    over_time: list[tuple[float, int]] = []
    fault: str = ""


class Result(BaseModel):
    """What one command measured, on which machine. `command`: what repeats it."""

    model_config = ConfigDict(frozen=True)
    benchmark: str
    command: str
    measured_at: str
    machine: dict[str, str]
    versions: dict[str, str]
    runs: list[Run]

    @property
    def fault(self) -> str:
        """What was not as it must be; empty where all was."""
        return "; ".join(f"{run.label}: {run.fault}" for run in self.runs if run.fault)


def result(benchmark: str, command: str, runs: list[Run], more_versions: dict[str, str] | None = None) -> Result:
    return Result(
        benchmark=benchmark,
        command=command,
        measured_at=f"{datetime.now(UTC):%Y-%m-%dT%H:%MZ}",
        machine=_machine(),
        versions=_versions() | (more_versions or {}),
        runs=runs,
    )


def _machine() -> dict[str, str]:
    memory_gb = psutil.virtual_memory().total / 1e9
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory_gb:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
        "load before": f"{os.getloadavg()[2]:.2f}",  # of the last 15 minutes: before what was measured
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _versions() -> dict[str, str]:
    from services.local.valkey import server_version

    found = {"Kafka": KAFKA_VERSION, "Valkey": server_version(), "Python": _interpreter()}
    return found | {name: version(name) for name in SHOWN_LIBRARIES}


def _interpreter() -> str:
    """Python's version and build: one that was not compiled along a profile needs up to a third more CPU."""
    if "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or ""):
        build = "optimised"
    else:  # a distribution's is, too, and does not say so there
        build = "of the system" if sys.base_prefix == "/usr" else "not optimised"
    return f"{platform.python_version()} ({build})"


# --- files ----------------------------------------------------------------------------------------------------------


def write(found: Result, folder: Path) -> Path:
    """As JSON; returns the file. The same benchmark overwrites its last one."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{found.benchmark}.json"
    file.write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return file


def read(file: Path) -> Result:
    """Errors: OSError, ValidationError."""
    return Result.model_validate_json(file.read_bytes())


# --- the terminal ---------------------------------------------------------------------------------------------------


def rows(run: Run) -> dict[str, float]:
    """Every figure of a run by the words that are shown."""
    found = {name.replace("_per_s", "/s").replace("_", " "): value for name, value in run.figures.items()}
    found |= {f"CPU s, {name}": value for name, value in run.cpu_seconds.items()}
    return found | {f"peak memory MB, {name}": value for name, value in run.peak_memory_mb.items()}


def number(value: float) -> str:
    """As it is read best: no more digits than were measured."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 or value == int(value) else f"{value:,.{1 if size >= 10 else 2}f}"


def line(*cells: str) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def show(console: Console, found: Result) -> None:
    table = Table(title=found.command, title_justify="left", title_style="bold")
    table.add_column("")
    for run in found.runs:
        table.add_column(run.label, justify="right")
    every = [rows(run) for run in found.runs]
    for name in dict.fromkeys(name for each in every for name in each):
        table.add_row(name, *(number(each[name]) if name in each else "" for each in every))
    console.print(table)
    if found.fault:
        console.print(f"NOT as it must be: {found.fault}", style="red", highlight=False)


def compared(before: Result, after: Result) -> Iterator[tuple[str, str, float, float]]:
    """Label, figure and its two values, of what stands in both."""
    known = {run.label: rows(run) for run in before.runs}
    for run in after.runs:
        for name, value in rows(run).items():
            if name in known.get(run.label, {}):
                yield run.label, name, known[run.label][name], value


def show_compared(console: Console, before: Result, after: Result) -> None:
    table = Table(title=f"{before.measured_at} against {after.measured_at}", title_justify="left", title_style="bold")
    for heading in ("run", "figure"):
        table.add_column(heading)
    for heading in ("before", "after", "after/before"):
        table.add_column(heading, justify="right")
    for label, name, was, now in compared(before, after):
        table.add_row(label, name, number(was), number(now), f"{now / was:.2f}" if was else "")
    console.print(table)
