"""A whole refstream on the session's Kafka and Redis, as `refstream up` runs it."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from services.cli.token import Role, signed
from services.runtime.settings import Settings
from tests.conftest import AUTH_SECRET, DATA_SECRETS, Stack


@dataclass(frozen=True)
class Running:
    """A running refstream: its address, its settings, and requests with a role's token."""

    url: str
    settings: Settings
    environment: dict[str, str]

    def get(self, path: str, role: Role = Role.admin, sub: str = "", **query: str) -> Any:
        """The JSON of a GET that succeeds."""
        token = signed(self.settings, role, sub or role.value)
        answer = httpx.get(
            self.url + path, params=query, headers={"authorization": f"Bearer {token}"}, timeout=20, trust_env=False
        )
        answer.raise_for_status()
        return answer.json()

    def refstream(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "services.cli.main", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def running(stack: Stack, request: pytest.FixtureRequest) -> Iterator[Running]:
    """Up for one module of tests, on the session's servers; down again after it.

    A module's ENVIRONMENT, if it has one, is added to the variables.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("REFSTREAM_")}
        environment |= {
            "REFSTREAM_KAFKA": stack.kafka,
            "REFSTREAM_REDIS": stack.redis,
            "REFSTREAM_DATA_DIR": folder,
            "REFSTREAM_PORT": "0",
            "REFSTREAM_AUTH_SECRET": AUTH_SECRET,
            "REFSTREAM_DATA_SECRETS": json.dumps(DATA_SECRETS),
            "REFSTREAM_SESSION_SECONDS": "2",
            **getattr(request.module, "ENVIRONMENT", {}),
        }
        up = Running("", stack.settings, environment)
        started = up.refstream("up", "--detach")
        try:
            assert started.returncode == 0, started.stdout + started.stderr
            url = json.loads(up.refstream("status", "--json").stdout)["url"]
            yield Running(url, stack.settings, environment)
        finally:
            up.refstream("down")
