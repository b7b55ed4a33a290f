"""Kafka and Valkey together: started, awaited and stopped as one."""

import fcntl
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from services.local import ports
from services.local.child import Child
from services.local.kafka import Kafka
from services.local.refusal import StackRefused
from services.local.valkey import Valkey
from services.runtime.settings import Settings

READY_SECONDS = 60.0
POLL_SECONDS = 0.1
STOP_SECONDS = 15.0
ATTEMPTS = 3  # a port that was free may be taken before the server has it
USUAL_PORTS = {"kafka": 9092, "redis": 6379}


class _PortLost(Exception):
    """A server ended while starting, and its port is somebody else's now."""


class LocalStack:
    """A Kafka and a Valkey for this process: they end with it.

    `data_dir`: where they keep their data, durable over stop and start; None: a throw-away directory and free ports.
    `kafka`, `redis`: an address given here is used and nothing is started for it.
    One stack at a time per data directory; any number of stacks with their own.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        kafka: str | None = None,
        redis: str | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        self._given = data_dir
        self._cache = (cache_dir or Settings().cache_path).absolute()
        self._external_kafka, self._external_redis = kafka, redis
        self._data_dir: Path | None = None
        self._lock: IO[str] | None = None
        self._kafka: Kafka | None = None
        self._valkey: Valkey | None = None
        self._ports: dict[str, int] = {}

    @property
    def kafka(self) -> str:
        """Bootstrap servers. Known after `start`."""
        return self._external_kafka or f"127.0.0.1:{self._ports['kafka']}"

    @property
    def redis(self) -> str:
        """URL. Known after `start`."""
        return self._external_redis or f"redis://127.0.0.1:{self._ports['redis']}/0"

    @property
    def children(self) -> dict[str, Child]:
        """What was started here, by name: kafka, valkey."""
        servers = {"kafka": self._kafka, "valkey": self._valkey}
        return {name: server.child for name, server in servers.items() if server and server.child}

    def restart(self, name: str) -> Child:
        """Start one of `children`, that has ended, at its old address; does not wait until it answers."""
        if name == "kafka" and self._kafka:
            return self._kafka.start(self._ports["kafka"], self._ports["controller"])
        if name == "valkey" and self._valkey:
            return self._valkey.start(self._ports["redis"])
        raise KeyError(name)

    def kafka_bytes(self) -> int:
        """What the Kafka that was started here holds of our topics on its disk. 0 where it is another's."""
        return self._kafka.bytes() if self._kafka else 0

    def start(self) -> None:
        """Start what was not given and return when it answers. Raises StackRefused; then nothing is left running."""
        self._data_dir = self._given.absolute() if self._given else Path(tempfile.mkdtemp(prefix="refstream-"))
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._take_lock(self._data_dir)
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    self._start_servers(self._data_dir)
                    return
                except _PortLost as lost:
                    self._stop_servers()
                    if attempt == ATTEMPTS:
                        raise StackRefused(f"no port could be kept: {lost}") from lost
        except BaseException:
            self.stop()
            raise

    def _take_lock(self, data_dir: Path) -> None:
        self._lock = (data_dir / "infra.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as taken:
            raise StackRefused(
                f"a stack with the data directory {data_dir} runs already: see `refstream status`, end it with "
                "`refstream down`, or set REFSTREAM_DATA_DIR to another directory"
            ) from taken

    def _start_servers(self, data_dir: Path) -> None:
        wishes = USUAL_PORTS if self._given else dict.fromkeys(USUAL_PORTS, 0)
        self._ports = ports.choose(data_dir, wishes | {"controller": 0})
        logs = data_dir / "logs"
        # Both at once: a fresh Kafka formats its storage first.
        with ThreadPoolExecutor(2) as pool:
            waits = []
            if self._external_redis is None:
                self._valkey = Valkey(data_dir / "valkey", logs / "valkey.log")
                waits.append(pool.submit(self._start_valkey, self._valkey))
            if self._external_kafka is None:
                self._kafka = Kafka(data_dir / "kafka", logs / "kafka.log", self._cache)
                waits.append(pool.submit(self._start_kafka, self._kafka))
            for wait in waits:
                wait.result()

    def _start_valkey(self, valkey: Valkey) -> None:
        child = valkey.start(self._ports["redis"])
        _await(child, lambda: valkey.answers(self.redis), self._ports["redis"])

    def _start_kafka(self, kafka: Kafka) -> None:
        child = kafka.start(self._ports["kafka"], self._ports["controller"])
        _await(child, lambda: kafka.answers(self.kafka), self._ports["kafka"], self._ports["controller"])

    def stop(self) -> None:
        """Stop what was started here; returns when the processes have gone. Throw-away data go with them."""
        self._stop_servers()
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        if self._given is None and self._data_dir is not None:
            shutil.rmtree(self._data_dir, ignore_errors=True)

    def _stop_servers(self) -> None:
        children = self.children.values()
        for child in children:
            child.terminate()
        for child in children:
            child.stop(STOP_SECONDS)
        self._kafka = self._valkey = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _await(child: Child, answers: Callable[[], bool], *used: int) -> None:
    """Poll until the server answers. Raises _PortLost, or StackRefused with the end of its log."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if child.exit_code is not None:
            lost = [port for port in used if not ports.is_free(port)]
            if lost:
                raise _PortLost(f"{child.name} lost port {lost[0]} to another process")
            raise StackRefused(f"{child.name} ended while starting; the end of {child.log}:\n{child.log_tail()}")
        if answers():
            return
        time.sleep(POLL_SECONDS)
    raise StackRefused(
        f"{child.name} did not answer in {READY_SECONDS:.0f} s; the end of {child.log}:\n{child.log_tail()}"
    )
