"""`refstream topics`: the topics of the contract, created and checked."""

import asyncio
from typing import Annotated

import typer

from services.cli.state import running_settings


def topics(
    programs: Annotated[
        bool, typer.Option("--with-programs", help="Also publish the shipped programs that were never published.")
    ] = False,
) -> None:
    """Create the topics that are missing and check the others against the contract.

    Exits with 1, and says what to do, where a topic has another partition count or keeps its records too short a time.
    """
    from services.runtime.topics_admin import ensure_topics, wanted

    settings = running_settings()
    created = asyncio.run(ensure_topics(settings))
    for name in created:
        print(f"created {name}")
    if programs:
        from services.attribution.setup import publish_shipped

        asyncio.run(publish_shipped(settings))
    print(f"{len(wanted(settings.partitions))} topics are as the contract says, {len(created)} of them new")
