"""The process behind `up`: starts everything in order, keeps it running, stops it in order."""

import asyncio
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import httpx
from pydantic import SecretStr

from services.cli.service import Service
from services.cli.state import Process, RunState, with_secrets, write_state
from services.cli.unit import Unit
from services.local import ports
from services.local.child import Child
from services.local.refusal import StackRefused
from services.local.stack import LocalStack
from services.runtime.settings import Settings

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
READY_SECONDS = 300.0  # a stack with a long history folds it before it is ready
STOP_SECONDS = 20.0
HOPELESS_DEATHS = 4  # before it was ever ready; later it is tried for ever


class Stopped(Exception):
    """Told to stop while starting."""


class Supervisor:
    """A whole local stack. `run` blocks until `stop` is called, from a signal handler or another thread."""

    def __init__(self, settings: Settings, infra_only: bool) -> None:
        self._settings = with_secrets(settings)
        self._infra_only = infra_only
        self._dir = settings.data_path
        self._units: list[Unit] = []
        self._metrics_ports: dict[str, int] = {}
        self._stopping = threading.Event()
        self._ready = False

    def stop(self) -> None:
        self._stopping.set()

    def run(self, on_ready: Callable[[RunState], None]) -> None:
        """Start, call `on_ready`, look after the processes, stop. Raises StackRefused, TopicsRefused and the like where
        it cannot start; then nothing is left running."""
        self._write()
        stack = LocalStack(
            self._dir, kafka=self._settings.kafka, redis=self._settings.redis, cache_dir=self._settings.cache_path
        )
        try:
            stack.start()
            self._settings = self._settings.model_copy(update={"kafka": stack.kafka, "redis": stack.redis})
            for name, child in stack.children.items():
                self._units.append(Unit(name, "infra", partial(stack.restart, name), child))
            self._write()
            self._prepare()
            if not self._infra_only:
                self._start_services()
                self._await_services()
                self._await_programs()
            self._ready = True
            on_ready(self._write())
            while not self._stopping.wait(POLL_SECONDS):
                self._mend()
        except Stopped:
            pass
        finally:
            self._stop_services()
            stack.stop()

    def _prepare(self) -> None:
        """Topics, and the wish for the shipped programs: both may have been there before."""
        from services.attribution.setup import publish_shipped
        from services.runtime.topics_admin import ensure_topics

        asyncio.run(ensure_topics(self._settings))
        asyncio.run(publish_shipped(self._settings))

    def _start_services(self) -> None:
        self._settings = self._settings.model_copy(update={"port": self._port()})
        if not self._settings.public_url:
            self._settings = self._settings.model_copy(update={"public_url": self._url})
        self._metrics_ports = ports.choose(self._dir, {f"{service.value}-metrics": 0 for service in Service})
        for service in Service:
            self._units.append(Unit(service.value, "worker", partial(self._start_worker, service.value)))
        self._units.append(Unit("all", "api", partial(self._spawn, "api", ["api"])))
        self._write()

    def _port(self) -> int:
        wish = self._settings.port
        if wish and "port" in self._settings.model_fields_set:
            if not ports.is_free(wish):
                raise StackRefused(f"port {wish} is taken: set REFSTREAM_PORT to another one, or to 0 for a free one")
            return wish
        return ports.choose(self._dir, {"api": wish})["api"]

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self._settings.port}"

    def _start_worker(self, service: str) -> Child:
        self._ready_file(service).unlink(missing_ok=True)
        own = {"READY_FILE": self._ready_file(service), "METRICS_PORT": self._metrics_ports[f"{service}-metrics"]}
        return self._spawn(
            service, ["worker", service], {f"REFSTREAM_{name}": str(value) for name, value in own.items()}
        )

    def _ready_file(self, service: str) -> Path:
        return self._dir / f"{service}.ready"

    def _spawn(self, name: str, arguments: list[str], more: dict[str, str] | None = None) -> Child:
        # -P: a folder `services` where the user happens to stand is not ours.
        command = [sys.executable, "-P", "-m", "services.cli.main", *arguments]
        return Child(name, command, self._dir / "logs" / f"{name}.log", self._environment() | (more or {}))

    def _environment(self) -> dict[str, str]:
        own = {
            "KAFKA": self._settings.kafka_bootstrap(),
            "REDIS": self._settings.redis_url(),
            "PORT": str(self._settings.port),
            "PUBLIC_URL": self._settings.public_url or self._url,
            "DATA_DIR": str(self._dir),
            "LOCAL": "1",
        }
        if self._settings.auth_secret:
            own["AUTH_SECRET"] = self._settings.auth_secret.get_secret_value()
        own["CLICK_SECRETS"] = json.dumps(_told(self._settings.click_secrets))
        own["DATA_SECRETS"] = json.dumps(_told(self._settings.data_secrets))
        return os.environ | {f"REFSTREAM_{name}": value for name, value in own.items()}

    def _await_services(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while missing := self._not_ready():
            if self._stopping.wait(POLL_SECONDS):
                raise Stopped
            self._mend()
            hopeless = next((unit for unit in self._units if unit.deaths >= HOPELESS_DEATHS), None)
            if hopeless or time.monotonic() > deadline:
                unit = hopeless or missing[0]
                why = "ends again and again" if hopeless else f"is not ready after {READY_SECONDS:.0f} s"
                raise StackRefused(
                    f"{unit.service} {unit.role} {why}; the end of {unit.child.log}:\n{unit.child.log_tail()}"
                )

    def _await_programs(self) -> None:
        """A ready stack knows the shipped programs: the first link or payment may come at once."""
        from services.attribution.setup import ProgramsNotPublished, until_published

        try:
            asyncio.run(until_published(self._settings))
        except ProgramsNotPublished as refused:
            raise StackRefused(f"{refused}; see {self._dir / 'logs' / 'attribution.log'}") from refused

    def _not_ready(self) -> list[Unit]:
        workers = [
            unit for unit in self._units if unit.role == "worker" and not self._ready_file(unit.service).exists()
        ]
        if workers:
            return workers
        answers = all(_answers(f"{self._url}/{service.value}/readyz") for service in Service)
        return [] if answers else [unit for unit in self._units if unit.role == "api"]

    def _mend(self) -> None:
        for unit in self._units:
            code = unit.child.exit_code
            if unit.mend():
                log.warning("%s %s ended with %s and was started again", unit.service, unit.role, code)
                self._write()

    def _stop_services(self) -> None:
        """All at once, and Kafka and Valkey only after them: a worker hands its cells over through both."""
        units = [unit for unit in self._units if unit.role != "infra"]
        for unit in units:
            unit.child.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for unit in units:
            unit.child.stop(max(0.1, deadline - time.monotonic()))

    def _metrics(self, unit: Unit) -> str | None:
        port = self._metrics_ports.get(f"{unit.service}-metrics") if unit.role == "worker" else None
        return f"http://127.0.0.1:{port}/metrics" if port else None

    def _write(self) -> RunState:
        settings = self._settings
        processes = [Process(service="refstream", role="supervisor", pid=os.getpid())]
        processes += [
            Process(service=unit.service, role=unit.role, pid=unit.child.pid, metrics=self._metrics(unit))
            for unit in self._units
        ]
        state = RunState(
            url=None if self._infra_only else self._url,
            public_url=settings.public_url,
            port=settings.port,
            kafka=settings.kafka or "",
            redis=settings.redis or "",
            partitions=settings.partitions,
            clock_offset=settings.clock_offset,
            auth_secret=settings.auth_secret.get_secret_value() if settings.auth_secret else None,
            click_secrets=_told(settings.click_secrets),
            data_secrets=_told(settings.data_secrets),
            infra_only=self._infra_only,
            ready=self._ready,
            processes=tuple(processes),
        )
        write_state(self._dir, state)
        return state


def _told(secrets: Mapping[str, SecretStr]) -> dict[str, str]:
    return {key_id: secret.get_secret_value() for key_id, secret in secrets.items()}


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.HTTPError:
        return False
