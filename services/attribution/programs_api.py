"""HTTP of the program documents: what is published, and publishing the next version."""

import asyncio
from http import HTTPStatus
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from schemas import commands as asks
from schemas.ids import Id
from services.attribution import PEOPLE, STAGES
from services.attribution.state import Version
from services.runtime.http import (
    Page,
    TheAdmin,
    TheCommands,
    ThePaging,
    TheResources,
    invalid,
    not_found,
    page,
)

router = APIRouter()

PUBLICATION_LOOKS, LOOK_SECONDS = 200, 0.01
"""How long a publication's answer waits for the version to come back from the topic: 2 seconds."""


@router.get("/programs", summary="Every program's latest document")
async def programs(who: TheAdmin, has: TheResources, paging: ThePaging) -> Page[dict[str, Any]]:
    program_ids = list(has.programs)
    states = await has.reader.states(PEOPLE, program_ids)
    published = [(program_id, state.versions) for program_id, state in zip(program_ids, states, strict=True)]
    return page(
        [(program_id, versions) for program_id, versions in published if versions],
        lambda each: (each[1][0].effective_at, each[0]),
        paging,
        lambda each: _document(each[1][-1]),
    )


@router.get("/programs/{program_id}", summary="A program's document, the latest version or a given one")
async def program(
    program_id: Id,
    who: TheAdmin,
    has: TheResources,
    version: Annotated[int | None, Query(ge=1, description="Without it, the latest version.")] = None,
) -> dict[str, Any]:
    versions = (await has.reader.state(PEOPLE, program_id)).versions
    found = next((each for each in reversed(versions) if version in (None, each.version)), None)
    if found is None:
        raise not_found()
    return _document(found)


@router.put("/programs/{program_id}", summary="Publish a program's next version")
async def publish(
    request: Request, program_id: Id, body: dict[str, Any], who: TheAdmin, has: TheResources, commands: TheCommands
) -> Response:
    """Answers when the version is on the topic, so that whatever is asked for next is decided knowing it."""
    _require_sendable(body)
    answer = await commands.run(request, who, STAGES, asks.PublishProgram, partner_id=program_id, document=body)
    if answer.status_code == HTTPStatus.OK:
        version = orjson.loads(bytes(answer.body))["version"]
        for _ in range(PUBLICATION_LOOKS):
            latest = has.programs.latest(program_id)
            if latest is not None and latest.version >= version:
                break
            await asyncio.sleep(LOOK_SECONDS)
    return answer


def _document(version: Version) -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(version.document)
    return document


def _require_sendable(document: dict[str, Any]) -> None:
    """Errors: Problem 422 for what JSON can say and a record cannot: a number beyond 64 bits, half of a character."""
    try:
        orjson.dumps(document)
    except orjson.JSONEncodeError as error:
        raise invalid("body", str(error)) from None
