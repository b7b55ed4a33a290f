"""What a benchmark runs on: a throw-away Kafka and Valkey, and processes of ours that it starts, kills and stops."""

import asyncio
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import httpx
from pydantic import SecretStr

from services.cli.bench.load import publish_programs, warm
from services.cli.bench.usage import Usage
from services.cli.service import Service
from services.local import ports
from services.local.child import Child
from services.local.refusal import StackRefused
from services.local.stack import LocalStack
from services.runtime.redis_client import connect
from services.runtime.settings import Settings
from services.runtime.topics_admin import ensure_topics

READY_SECONDS, POLL_SECONDS, STOP_SECONDS = 900.0, 0.02, 30.0
OURS = (sys.executable, "-P", "-m", "services.cli.main")
NO_LIMIT = 1_000_000_000
"""Requests are counted as ever, and none is refused."""


@dataclass(frozen=True, slots=True)
class Running:
    """A process of ours. `ready_file`: there as soon as it has opened its cells."""

    name: str
    child: Child
    ready_file: Path | None = None

    @property
    def ready_seconds(self) -> float | None:
        """For how long it has had its cells; None while it has not."""
        if self.ready_file is None:
            return 0.0
        try:
            return max(0.0, time.time() - self.ready_file.stat().st_mtime)
        except FileNotFoundError:
            return None


class Lab(AbstractContextManager["Lab"]):
    """Kafka and Valkey with all topics and the shipped programs; whatever was started ends with the block.

    Free ports and throw-away folders: it meets no other stack. Errors: StackRefused.
    """

    def __init__(self, partitions: int = 4, programs: bool = True) -> None:
        self._partitions, self._with_programs = partitions, programs
        self._running: list[Running] = []
        self._started = 0
        self.usage = Usage()

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="refstream-bench-"))
        given = Settings.load()
        self._stack = LocalStack(cache_dir=given.cache_path)
        try:
            self._stack.start()
            self.settings = self._settings(given)
            for name, child in self._stack.children.items():
                self.usage.add(name, child.pid)
            asyncio.run(self._prepare())
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self.stop()
        self._stack.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _settings(self, given: Settings) -> Settings:
        own = {name: {"1": SecretStr(secrets.token_hex(32))} for name in ("click_secrets", "data_secrets")}
        port = ports.any_free()
        return given.model_copy(
            update={
                **own,
                "auth_secret": SecretStr(secrets.token_hex(32)),
                "kafka": self._stack.kafka,
                "redis": self._stack.redis,
                "partitions": self._partitions,
                "data_dir": self.folder,
                "port": port,
                "public_url": f"http://127.0.0.1:{port}",
                "local": True,
                "kafka_security_protocol": "PLAINTEXT",
                "clock_offset": 0,
            }
        )

    async def _prepare(self) -> None:
        await ensure_topics(self.settings)
        await warm(self.settings)
        if self._with_programs:
            await publish_programs(self.settings)

    async def kept(self) -> dict[str, int]:
        """How many bytes Redis and Kafka hold."""
        redis = connect(self.settings.redis_url())
        try:
            return {"redis": int((await redis.info("memory"))["used_memory"]), "kafka": self._stack.kafka_bytes()}
        finally:
            await redis.aclose()

    # --- processes ------------------------------------------------------------------------------------------------

    def work(
        self, services: Iterable[Service], count: int = 1, more: Mapping[str, str] = MappingProxyType({})
    ) -> list[Running]:
        """Start fresh workers, `count` of each service; returns at once. `more`: as in `run`."""
        return [self._worker(service, more) for service in services for _ in range(count)]

    def _worker(self, service: Service, more: Mapping[str, str]) -> Running:
        ready = self.folder / f"{service.value}-{self._started}.ready"
        own = {**more, "REFSTREAM_READY_FILE": str(ready)}
        return self.run(f"{service.value} worker", [*OURS, "worker", service.value], own)

    def pace(self, rate: float, seconds: float, customers: int, first: int = 0) -> Running:
        """Start publishing payments at a steady rate, as `pace.py` says."""
        told = [str(each) for each in (rate, seconds, customers, first)]
        return self.run("load", [sys.executable, "-P", "-m", "services.cli.bench.pace", *told])

    def serve(self) -> Running:
        """Start the API of all services; returns when it answers. Errors: StackRefused."""
        api = self.run("api", [*OURS, "api"])
        deadline = time.monotonic() + READY_SECONDS
        while not all(self._answers(f"/{service.value}/readyz") for service in Service):
            self._refuse_dead([api], deadline)
            time.sleep(POLL_SECONDS)
        return api

    def _answers(self, path: str) -> bool:
        try:
            return httpx.get(self.url + path, timeout=5).is_success
        except httpx.HTTPError:
            return False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.port}"

    def run(
        self,
        name: str,
        command: list[str],
        more: Mapping[str, str] = MappingProxyType({}),
        *,
        with_children: bool = False,
    ) -> Running:
        """Start any program, its usage counted under `name`. `more`: environment variables beside the settings'."""
        self._started += 1
        log = self.folder / f"{name.replace(' ', '-')}-{self._started}.log"
        ready = more.get("REFSTREAM_READY_FILE")
        child = Child(name, command, log, self.environment() | dict(more))
        running = Running(name, child, Path(ready) if ready else None)
        self._running.append(running)
        self.usage.add(name, child.pid, with_children=with_children)
        return running

    def environment(self) -> dict[str, str]:
        settings = self.settings
        own = {
            "KAFKA": settings.kafka_bootstrap(),
            "REDIS": settings.redis_url(),
            "PARTITIONS": str(settings.partitions),
            "PORT": str(settings.port),
            "PUBLIC_URL": settings.public_url or "",
            "DATA_DIR": str(self.folder),
            "SESSION_SECONDS": str(settings.session_seconds),
            "LOG_LEVEL": "WARNING",
            "LOCAL": "1",
            "RATE_LIMIT_PARTNER": str(NO_LIMIT),
            "RATE_LIMIT_TRUSTED": str(NO_LIMIT),
            "RATE_LIMIT_PUBLIC": str(NO_LIMIT),
            "AUTH_SECRET": _told(settings.auth_secret),
            "CLICK_SECRETS": json.dumps({key: _told(value) for key, value in settings.click_secrets.items()}),
            "DATA_SECRETS": json.dumps({key: _told(value) for key, value in settings.data_secrets.items()}),
        }
        theirs = {name: value for name, value in os.environ.items() if not name.startswith("REFSTREAM_")}
        return theirs | {f"REFSTREAM_{name}": value for name, value in own.items()}

    def await_ready(self, workers: Iterable[Running]) -> None:
        """Return when all have opened their cells. Errors: StackRefused when one ends, or takes too long."""
        workers, deadline = list(workers), time.monotonic() + READY_SECONDS
        while any(worker.ready_seconds is None for worker in workers):
            self._refuse_dead(workers, deadline)
            time.sleep(POLL_SECONDS)

    def finish(self, command: Running) -> None:
        """Return when a program has ended well. Errors: StackRefused when it has not."""
        while command.child.exit_code is None:
            time.sleep(POLL_SECONDS)
        if command.child.exit_code:
            self._refuse_dead([command], float("inf"))
        self.stop([command])

    def refuse_dead(self) -> None:
        """Errors: StackRefused when a process that should run has ended."""
        self._refuse_dead(self._running, float("inf"))

    def _refuse_dead(self, running: Iterable[Running], deadline: float) -> None:
        for each in running:
            if each.child.exit_code is not None:
                raise StackRefused(f"{each.name} ended with {each.child.exit_code}:\n{each.child.log_tail()}")
            if time.monotonic() > deadline:
                raise StackRefused(f"{each.name} is not ready after {READY_SECONDS:.0f} s:\n{each.child.log_tail()}")

    def kill(self, running: Iterable[Running]) -> None:
        """SIGKILL, all at once."""
        running = list(running)
        for each in running:
            os.kill(each.child.pid, signal.SIGKILL)
        self.stop(running)

    def stop(self, running: Iterable[Running] | None = None) -> None:
        """Ask them to end and wait; all of them where none are named."""
        leaving = list(self._running if running is None else running)
        for each in leaving:
            each.child.terminate()
        for each in leaving:
            each.child.stop(STOP_SECONDS)
        self._running = [each for each in self._running if each not in leaving]


def _told(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""
