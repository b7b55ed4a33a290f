"""`refstream status`: what runs, and how far behind it is."""

import asyncio
import json
import os
from typing import Annotated, Any

import typer

from services.cli.service import Service
from services.cli.state import Process, RunState, read_state, running_settings
from services.runtime.settings import Settings


def status(
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: url, kafka, redis, services, processes.")
    ] = False,
) -> None:
    """Show what runs, and each service's lag per topic and partition. Exits with 1 when something is down."""
    settings = running_settings()
    state = read_state(settings.data_path)
    report, down = _report(settings, state)
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        _print(report, down)
    if down:
        raise typer.Exit(1)


def _report(settings: Settings, state: RunState | None) -> tuple[dict[str, Any], list[str]]:
    """What `--json` prints, and what is down, each as a line for a person."""
    processes = list(state.processes) if state else []
    down = [f"{process.service} {process.role} is down" for process in processes if not _lives(process)]
    report: dict[str, Any] = {
        "url": state.url if state else settings.public_url,
        "kafka": settings.kafka,
        "redis": settings.redis,
        "ready": bool(state and state.ready),
        "services": [],
        "waiting": {},
        "processes": [process.model_dump() for process in processes],
    }
    if not (settings.kafka and settings.redis):
        return report, ["nothing runs: start it with `refstream up`"]
    if state and not state.ready:
        down.append("the stack is starting")
    try:
        report["services"], report["waiting"] = asyncio.run(_progress(settings))
    except Exception as error:  # whatever it is, it is what this command is there to tell
        down.append(f"Kafka or Redis does not answer: {type(error).__name__}: {error}")
    return report, down


def _lives(process: Process) -> bool:
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


async def _progress(settings: Settings) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Lag per service, topic and partition; and per stage how many events wait for others that have not come yet."""
    from services.runtime.lag import lags
    from services.runtime.redis_client import connect
    from services.runtime.stages import stages_of
    from services.runtime.store import tag

    stages = {service.value: stages_of(service.value, settings) for service in Service}
    reads = {service: sorted({topic.name for stage in own for topic in stage.reads}) for service, own in stages.items()}
    rows = [
        {"service": lag.service, "topic": lag.topic, "partition": lag.partition, "lag": lag.lag}
        for lag in await lags(settings, reads)
    ]
    redis = connect(settings.redis_url())
    try:
        waiting = {}
        for stage in (stage for own in stages.values() for stage in own):
            counts = [await redis.hget(f"{tag(stage.name, at)}:meta", "waiting") for at in range(settings.partitions)]
            waiting[stage.name] = sum(int(count or 0) for count in counts)
    finally:
        await redis.aclose()
    return rows, waiting


def _print(report: dict[str, Any], down: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for name in ("url", "kafka", "redis"):
        console.print(f"{name:<6} {report[name] or '–'}", highlight=False)
    if report["processes"]:
        table = Table("service", "role", "pid", title="Processes")
        for process in report["processes"]:
            table.add_row(process["service"], process["role"], str(process["pid"]))
        console.print(table)
    if report["services"]:
        table = Table("service", "topic", "lag", "by partition", title="Lag")
        for service, topic in sorted({(row["service"], row["topic"]) for row in report["services"]}):
            lags = [row["lag"] for row in report["services"] if (row["service"], row["topic"]) == (service, topic)]
            table.add_row(service, topic, str(sum(lags)), " ".join(map(str, lags)))
        console.print(table)
    for stage, count in report["waiting"].items():
        if count:
            console.print(f"{stage}: {count} events wait for others", highlight=False)
    for line in down:
        console.print(line, style="red", highlight=False)
