"""A whole refstream with everything within reach: its servers behind proxies, its processes by name."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import redis

from services.cli.token import Role, signed
from services.local import ports
from services.local.child import Child
from services.local.kafka import Kafka
from services.local.valkey import Valkey
from services.runtime.settings import Settings
from tests.conftest import AUTH_SECRET
from tests.faults.proxy import Proxy
from tests.faults.recovery import seconds_until_out
from tests.journey import Journey, journeys
from tests.worlds import EXAMPLES

SESSION_SECONDS = 2
CACHE = Settings().cache_path.absolute()
WORKERS = ("attribution", "commission", "rewards", "payouts")
SPACE_SECONDS = 1.0
WRONG_CLOCK = Path(__file__).parent / "wrong_clock"


class Ground:
    """Four workers and the API of a refstream, in one folder, over servers of somebody's."""

    def __init__(self, folder: Path, kafka: str, redis: str) -> None:
        """`kafka`, `redis`: what refstream is told; the tests ask there too, unless `settings` are others."""
        self._folder = folder
        self.url = ""
        self.before: Sequence[Journey] = ()
        """What was played before all faults."""
        self.forged: set[tuple[str, int, int]] = set()
        """Where records stand that carry marks which are not refstream's."""
        self.environment = {n: v for n, v in os.environ.items() if not n.startswith("REFSTREAM_")} | {
            "REFSTREAM_KAFKA": kafka,
            "REFSTREAM_REDIS": redis,
            "REFSTREAM_DATA_DIR": str(folder / "up"),
            "REFSTREAM_PORT": "0",
            "REFSTREAM_AUTH_SECRET": AUTH_SECRET,
            "REFSTREAM_SESSION_SECONDS": str(SESSION_SECONDS),
        }
        self.settings = Settings(kafka=kafka, redis=redis, auth_secret=AUTH_SECRET, local=True)  # type: ignore[arg-type]

    def journeys(self, tag: str) -> list[Journey]:
        """Those that are played here, with ids of their own."""
        return journeys(tag)

    def refstream(self, *arguments: str, seconds: float = 300) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "services.cli.main", *arguments]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=seconds, check=False
        )

    def up(self) -> None:
        started = self.refstream("up", "--detach")
        assert started.returncode == 0, started.stdout + started.stderr
        self.url = json.loads((self._folder / "up" / "state.json").read_text())["url"]
        for example in EXAMPLES:
            published = self.refstream("programs", "publish", str(example), "--yes")
            assert published.returncode == 0, published.stdout + published.stderr

    def pid_of(self, service: str) -> int:
        """Of a worker, as it is now."""
        state = json.loads((self._folder / "up" / "state.json").read_text())
        return next(int(p["pid"]) for p in state["processes"] if (p["service"], p["role"]) == (service, "worker"))

    @contextmanager
    def wrong_clock(self, service: str, seconds: int) -> Iterator[Child]:
        """A further worker of a service, with a clock that is so much ahead; killed at the end."""
        state = json.loads((self._folder / "up" / "state.json").read_text())
        ready = self._folder / "wrong.ready"
        ready.unlink(missing_ok=True)
        more = {
            "PYTHONPATH": str(WRONG_CLOCK),
            "WRONG_CLOCK_SECONDS": str(seconds),
            "REFSTREAM_LOCAL": "1",
            "REFSTREAM_READY_FILE": str(ready),
            "REFSTREAM_CLICK_SECRETS": json.dumps(state["click_secrets"]),
            "REFSTREAM_DATA_SECRETS": json.dumps(state["data_secrets"]),
        }
        command = [sys.executable, "-P", "-m", "services.cli.main", "worker", service]
        child = Child("wrong clock", command, self._folder / "up" / "logs" / "wrong.log", self.environment | more)
        try:
            until(ready.exists, 120)
            yield child
        finally:
            os.kill(child.pid, signal.SIGKILL)
            child.stop(10)

    def signal(self, service: str, what: signal.Signals) -> int:
        """Answers the pid that it went to; one that has just died is nobody's loss."""
        pid = self.pid_of(service)
        try:
            os.kill(pid, what)
        except ProcessLookupError:
            return 0
        return pid

    def ask(self, path: str, **query: str) -> httpx.Response:
        token = signed(self.settings, Role.admin, "admin")
        headers = {"authorization": f"Bearer {token}"}
        return httpx.get(self.url + path, params=query, headers=headers, timeout=20, trust_env=False)

    def get(self, path: str, **query: str) -> Any:
        """The JSON of a GET that succeeds, as soon as nothing is being rebuilt any more."""
        deadline = time.monotonic() + 60
        while (answer := self.ask(path, **query)).status_code == 503 and time.monotonic() < deadline:
            time.sleep(0.2)
        answer.raise_for_status()
        return answer.json()

    def logs(self, of_each: int | None = 4000) -> str:
        """The last so many characters of each log; None: all of them."""
        texts = [path.read_text(errors="replace") for path in (self._folder / "up" / "logs").iterdir()]
        return "".join(text[-of_each:] if of_each else text for text in texts)


class Playground(Ground):
    """Kafka and Valkey, each one server within reach, and a refstream. Everything of it ends with `playground()`."""

    def __init__(self, folder: Path) -> None:
        names = ("kafka", "kafka-proxy", "controller", "redis", "redis-proxy")
        self.ports = ports.choose(folder, dict.fromkeys(names, 0))
        self.kafka_proxy = Proxy(self.ports["kafka-proxy"], self.ports["kafka"])
        self.redis_proxy = Proxy(self.ports["redis-proxy"], self.ports["redis"])
        self._kafka = Kafka(folder / "kafka", folder / "kafka.log", CACHE)
        self._valkey = Valkey(folder / "valkey", folder / "valkey.log")
        super().__init__(
            folder,
            kafka=f"127.0.0.1:{self.ports['kafka-proxy']}",
            redis=f"redis://127.0.0.1:{self.ports['redis-proxy']}/0",
        )
        # The tests themselves look past the proxy of Redis; Kafka names its own to everybody.
        past = {"kafka": f"127.0.0.1:{self.ports['kafka']}", "redis": f"redis://127.0.0.1:{self.ports['redis']}/0"}
        self.settings = self.settings.model_copy(update=past)

    def start_kafka(self) -> None:
        self._kafka.start(self.ports["kafka"], self.ports["controller"], advertised=self.ports["kafka-proxy"])
        until(lambda: self._kafka.answers(self.settings.kafka_bootstrap()), 60)

    def start_valkey(self) -> None:
        self._valkey.start(self.ports["redis"])
        until(lambda: self._valkey.answers(self.settings.redis_url()), 60)

    def kill_kafka(self) -> None:
        assert self._kafka.child
        os.kill(self._kafka.child.pid, signal.SIGKILL)
        self._kafka.child.stop(10)

    def kill_valkey(self) -> None:
        assert self._valkey.child
        os.kill(self._valkey.child.pid, signal.SIGKILL)
        self._valkey.child.stop(10)

    def fill_disk(self, server: str, seconds: float) -> None:
        """Leave no room on the disk of a server for so long; a server that dies of it is started again.

        The folder `server` of the playground must be a disk of its own, or the machine's would be full.
        """
        folder = self._folder / server
        assert folder.is_mount()
        # Without a buffer: closing would write what is left of it, where there is no room.
        with (folder / "fill").open("wb", buffering=0) as fill, contextlib.suppress(OSError):
            while True:
                fill.write(bytes(1 << 16))
        time.sleep(seconds)
        (folder / "fill").unlink()
        child = self._kafka.child if server == "kafka" else self._valkey.child
        if child and child.exit_code is not None:
            child.stop(1)
            (self.start_kafka if server == "kafka" else self.start_valkey)()

    def stop_servers(self) -> None:
        for child in (self._kafka.child, self._valkey.child):
            if child:
                child.stop(15)

    @property
    def redis(self) -> "redis.Redis[bytes]":
        return redis.Redis.from_url(self.settings.redis_url())

    @property
    def valkey_version(self) -> str:
        about: Any = self.redis.info("server")
        return str(about.get("valkey_version") or about["redis_version"])


Fault = Callable[[Any, random.Random], Collection[str]]
"""Does its harm once and undoes what it can; answers the services that it hit."""


@contextmanager
def playground(folder: Path) -> Iterator[Playground]:
    made = Playground(folder)
    with ExitStack() as until_the_end:
        until_the_end.enter_context(made.kafka_proxy)
        until_the_end.enter_context(made.redis_proxy)
        until_the_end.callback(made.stop_servers)
        made.start_kafka()
        made.start_valkey()
        until_the_end.callback(made.refstream, "down")
        made.up()
        yield made


class Harm:
    """Faults at random moments beside what is done here, one after the other.

    After each, the services that it hit must put out again before the next comes. `recoveries`: how many seconds that
    took; `failures`: what went wrong with it, to be told where it can fail the test.
    """

    def __init__(self, ground: Ground, faults: "Sequence[Fault]", rng: random.Random) -> None:
        self._ground, self._faults, self._rng = ground, faults, rng
        self.recoveries, self.failures = list[float](), list[str]()
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._happen)

    def __enter__(self) -> "Harm":
        self._thread.start()
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        if failed:
            self._given_up.set()
        self._thread.join()

    @property
    def goes_on(self) -> bool:
        return self._thread.is_alive()

    def _happen(self) -> None:
        for fault in self._faults:
            if self._given_up.wait(self._rng.uniform(0, 2) * SPACE_SECONDS):
                return
            try:
                hit = fault(self._ground, self._rng)
                self.recoveries.append(seconds_until_out(self._ground.settings, hit))
            except Exception as error:
                self.failures.append(repr(error))


def until(what: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.1)
