"""docker-compose.yml and what stands beside it: every service is there, and what it runs exists."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from services.cli.main import app
from services.cli.service import Service
from services.local.jars import KAFKA_VERSION
from services.runtime.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = {name: body for name, body in COMPOSE["services"].items() if body["image"].startswith("refstream:")}


@pytest.mark.parametrize("service", list(Service))
@pytest.mark.parametrize("role", ["worker", "api"])
def test_every_service_runs_as_worker_and_as_api_with_a_health_check(service: Service, role: str) -> None:
    container = OURS[f"{service.value}-{role}"]
    assert container["command"] == [role, service.value]
    assert container["healthcheck"]["test"]
    assert container["depends_on"]["topics"] == {"condition": "service_completed_successfully"}


@pytest.mark.parametrize("name", OURS)
def test_every_container_runs_a_command_that_exists(name: str) -> None:
    command, *arguments = OURS[name]["command"]
    known: Any = get_command(app)
    assert command in known.commands
    known.commands[command].make_context(command, list(arguments))  # parses; an unknown option or service raises


@pytest.mark.parametrize("name", OURS)
def test_every_variable_of_a_container_is_a_setting(name: str) -> None:
    names = {variable for variable in OURS[name]["environment"] if variable.startswith("REFSTREAM_")}
    assert names <= {f"REFSTREAM_{field.upper()}" for field in Settings.model_fields}


def test_three_brokers_are_started_by_variables_that_the_composition_knows() -> None:
    told = dict(
        line.split("=", 1)
        for line in (ROOT / "deploy/compose/three-brokers.env").read_text().splitlines()
        if line and not line.startswith("#")
    )
    composition = (ROOT / "docker-compose.yml").read_text()
    assert all(f"${{{name}" in composition for name in told if name != "COMPOSE_PROFILES")
    brokers = [name for name, body in COMPOSE["services"].items() if body["image"].startswith("apache/kafka:")]
    assert told["REFSTREAM_KAFKA"] == ",".join(f"{name}:9092" for name in brokers)
    voters = ",".join(f"{COMPOSE['services'][name]['environment']['KAFKA_NODE_ID']}@{name}:9093" for name in brokers)
    assert told["KAFKA_VOTERS"] == voters
    assert all(
        COMPOSE["services"][name].get("profiles", [told["COMPOSE_PROFILES"]]) == [told["COMPOSE_PROFILES"]]
        for name in brokers
    )


def test_kafka_is_the_version_of_the_local_stack() -> None:
    assert COMPOSE["services"]["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"


def test_the_edge_sends_each_prefix_to_its_service_and_hides_the_inside() -> None:
    caddyfile = (ROOT / "deploy/edge/Caddyfile").read_text()
    assert dict(re.findall(r"handle /(\w+)/\* \{\s+reverse_proxy \{\s+dynamic a (\S+) 8080", caddyfile)) == {
        service.value: f"{service.value}-api" for service in Service
    }
    assert "healthz|readyz|metrics" in caddyfile


def test_locks_hold_hashes_and_no_addresses() -> None:
    for name in ("requirements.lock", "requirements-runtime.lock", "requirements-tools.lock"):
        lock = (ROOT / name).read_text()
        assert "://" not in lock
        assert not re.search(r"^--", lock, re.MULTILINE)
        assert len(re.findall(r"^\S+==", lock, re.MULTILINE)) == len(
            re.findall(r"^\S+==.*\\\n +--hash=", lock, re.MULTILINE)
        )


def test_the_runtime_lock_is_part_of_the_whole_lock() -> None:
    whole, runtime = (
        set(re.findall(r"^(\S+==\S+)", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements.lock", "requirements-runtime.lock")
    )
    assert runtime < whole
