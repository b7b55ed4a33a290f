"""The programs feed on a real Kafka: what was published before the question is known after it."""

import asyncio
import uuid

import pytest

from schemas.events import Event, ProgramPublished
from schemas.programs import shipped
from services.runtime.programs import ProgramsFeed
from tests.conftest import Stack
from tests.over_kafka import publish

pytestmark = pytest.mark.infra
VERSIONS = 10


def test_a_version_that_was_published_is_known_after_catching_up(stack: Stack) -> None:
    program, program_id = shipped()[0], f"feed-{uuid.uuid4().hex[:8]}"

    async def main() -> None:
        feed = ProgramsFeed(stack.settings)
        await feed.start()
        try:
            for version in range(1, VERSIONS + 1):
                document = program.as_document() | {"program_id": program_id, "version": version}
                made = ProgramPublished(program_id=program_id, version=version, effective_at=version, document=document)
                await publish(stack.settings, [Event(f"{program_id}:{version}", "/attribution", version, made)])
                await feed.catch_up()
                latest = feed.programs.latest(program_id)
                assert latest is not None
                assert latest.version == version
        finally:
            await feed.stop()

    asyncio.run(main())
