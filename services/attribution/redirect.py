"""Following a link: where it leads, and what is remembered of the visitor.

Only a top-level navigation counts: a picture, a frame or a script that points to a link, a preview or a prefetch gets
the redirect and neither cookie nor click, so that nobody can stuff cookies into browsers that never saw a link.
Source: contract.md, GET /attribution/r/{code}.
"""

import asyncio
import logging
import secrets
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from schemas import events
from schemas.events import Event
from schemas.moments import DAY, SECOND, micros
from schemas.programs import Programs
from services.attribution import CODE_OWNERS, signer_of
from services.attribution.codes import normalised
from services.attribution.cookie import MAX_AGE_DAYS, NAME, Visit
from services.attribution.state import Code
from services.runtime.http import Problem, TheResources, TheVisitor, not_found
from services.runtime.settings import Settings

log = logging.getLogger(__name__)

WriteClick = Callable[[Event, str], Awaitable[None]]
LinkCode = Annotated[str, Path(min_length=1, max_length=256, examples=["k5xw4zjanrqxg2lo"])]
CLICK_SECONDS = 3.0
"""How long a visitor waits for the click to be on the log. Then they go on: the cookie holds the evidence."""


def is_navigation(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a person went here with a browser. Old browsers send no `Sec-Fetch-*`; a browser that does, says."""
    if method != "GET":
        return False
    if (
        "prefetch"
        in f"{headers.get('sec-purpose', '')} {headers.get('purpose', '')} {headers.get('x-moz', '')}".lower()
    ):
        return False
    if not any(name.lower().startswith("sec-fetch-") for name in headers):
        return True
    return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"


def cookie_days(programs: Programs) -> int:
    """How long a click can count at most: the longest window, as far as browsers keep a cookie."""
    latest = [programs.latest(program_id) for program_id in programs]
    windows = [program.attribution.window_days or MAX_AGE_DAYS for program in latest if program]
    return min(MAX_AGE_DAYS, max(windows, default=MAX_AGE_DAYS))


def redirect_routes(settings: Settings, write_click: WriteClick) -> APIRouter:
    """The public route. `write_click(event, visitor id)` puts a click on the log."""
    router = APIRouter()
    signer = signer_of(settings)
    secure = (settings.public_url or "").lower().startswith("https:")

    @router.head("/r/{code}", include_in_schema=False)
    @router.get(
        "/r/{code}",
        summary="Follow a partner's link",
        status_code=302,
        response_class=Response,
        responses={302: {"description": "To the link's destination; a navigation also sets the cookie `ref`."}},
    )
    async def follow(request: Request, code: LinkCode, visitor: TheVisitor, has: TheResources) -> Response:
        link = await has.reader.state(CODE_OWNERS, normalised(code))
        if link.kind != "link":
            raise not_found()
        response = Response(status_code=302, headers={"Location": link.destination, "Cache-Control": "no-store"})
        if not is_navigation(request.method, request.headers):
            return response
        at = micros(settings.now())
        before = signer.read(request.cookies.get(NAME, ""))
        visit = (before or Visit(secrets.token_urlsafe(16))).clicked(normalised(code), at)
        await _record(write_click, visit.visitor_id, link, at)
        response.set_cookie(
            NAME,
            signer.write(visit),
            max_age=cookie_days(has.programs) * DAY // SECOND,
            path="/",
            secure=secure,
            httponly=True,
            samesite="lax",
        )
        return response

    return router


async def _record(write_click: WriteClick, visitor_id: str, link: Code, at: int) -> None:
    """Write the click before the answer; a log that is out of reach costs the partner's count, not the visitor."""
    clicked = events.ClickRecorded(
        visitor_id=visitor_id, code=link.code, partner_id=link.partner_id, program_id=link.program_id
    )
    event = Event(f"click_{uuid.uuid4().hex}", "/attribution", at, clicked)
    try:
        # Shielded: a visitor who leaves, or the time limit, must not break the producer in the middle of a batch.
        await asyncio.wait_for(asyncio.shield(write_click(event, visitor_id)), CLICK_SECONDS)
    except (TimeoutError, Problem):
        log.warning("click not written in time", extra={"partner_id": link.partner_id, "program_id": link.program_id})
