"""What all tests share: one Kafka and one Redis per session, the local ones or the official images."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from hypothesis import settings as hypothesis_settings

from services.local.stack import LocalStack
from services.runtime.settings import Settings
from services.runtime.topics_admin import ensure_topics

# Whoever works on a rule explores other examples each time; a landing is judged by the same ones every time.
hypothesis_settings.register_profile("explore", deadline=None)
hypothesis_settings.register_profile("landing", deadline=None, derandomize=True)
hypothesis_settings.load_profile("landing" if os.environ.get("CI") else "explore")

AUTH_SECRET = "the-secret-of-all-tests-with-64-characters-0123456789abcdefghijk"  # pragma: allowlist secret


DATA_SECRETS = {"1": AUTH_SECRET}


@dataclass(frozen=True, slots=True)
class Stack:
    """Addresses of a running Kafka, with all topics, and Redis; `settings` point to them."""

    kafka: str
    redis: str
    settings: Settings


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--infra",
        choices=("local", "docker"),
        default="local",
        help="where tests marked infra find Kafka and Redis: child processes (default), or containers",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `long` run with REFSTREAM_LONG=1 alone."""
    if os.environ.get("REFSTREAM_LONG"):
        return
    left_out = [item for item in items if item.get_closest_marker("long")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Throw-away servers with all topics created. Shared by the session: use ids of your own."""
    with ExitStack() as until_the_end:
        if request.config.getoption("--infra") == "docker":
            from tests import containers

            kafka = until_the_end.enter_context(containers.kafka())
            redis = until_the_end.enter_context(containers.valkey())
        else:
            servers = until_the_end.enter_context(LocalStack())
            kafka, redis = servers.kafka, servers.redis
        settings = Settings.model_validate(
            {"kafka": kafka, "redis": redis, "auth_secret": AUTH_SECRET, "data_secrets": DATA_SECRETS, "local": True}
        )
        asyncio.run(ensure_topics(settings))
        yield Stack(kafka, redis, settings)
