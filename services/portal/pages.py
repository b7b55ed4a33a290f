"""What a page is: a name, what it loads from the APIs, and two templates. `{name}.live.html` holds the figures, which
follow by themselves while the page is open; `{name}.html` everything around them, forms included."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response, StreamingResponse

from services.portal.client import ApiRefused
from services.portal.visit import Form, Visit, seen

LOOK_SECONDS = 1.0
"""How often an open page looks whether its figures have changed."""
STREAM_SECONDS = 600.0
"""Then the browser connects again, and its session is looked at again."""

Load = Callable[[], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was wrong with a form, and what the browser had filled in."""

    code: str
    detail: str
    errors: tuple[tuple[str, str], ...]
    values: Form


async def shown(visit: Visit, template: str, load: Load, refused: Refusal | None = None, status: int = 200) -> Response:
    """A whole page."""
    context = await load()
    live = visit.part(f"{template}.live.html", **context)
    done = visit.request.query_params.get("done", "")
    values = refused.values if refused else Form({}, {})
    own: dict[str, Any] = {"live": live, "seen": seen(live), "refused": refused, "done": done, "values": values}
    return visit.page(f"{template}.html", status, **context, **own)


async def followed(visit: Visit, template: str, load: Load, look_seconds: float = LOOK_SECONDS) -> Response:
    """The stream of an open page's figures: each time that they change, all of them as HTML."""

    async def changes() -> AsyncIterator[bytes]:
        known, until = visit.request.query_params.get("seen", ""), time.monotonic() + STREAM_SECONDS
        yield b"retry: 1000\n\n"
        while time.monotonic() < until and not visit.request.app.state.is_ending():
            try:
                live = visit.part(f"{template}.live.html", **await load())
            except ApiRefused as refused:  # it may be rebuilding, or be started anew; what is shown stays
                if refused.status < 500:
                    return
            else:
                if seen(live) != known:
                    known = seen(live)
                    yield b"".join(b"data: %s\n" % line.encode() for line in live.splitlines()) + b"\n"
            await asyncio.sleep(look_seconds)

    await load()  # what cannot be loaded is no page: its error is the answer
    return StreamingResponse(changes(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def tried(
    visit: Visit, template: str, load: Load, act: Callable[[], Awaitable[Response]], values: Form
) -> Response:
    """What a form asks for; where it is refused, its page with the reason. Errors: ApiRefused for what is not found."""
    try:
        return await act()
    except ApiRefused as refused:
        if refused.status in (401, 403, 404):
            raise
        why = Refusal(refused.code, refused.detail, refused.errors, values)
        return await shown(visit, template, load, why, 409 if refused.status == 202 else refused.status)


async def quoted(visit: Visit, template: str, ask: Callable[[Form], Awaitable[Any]]) -> Response:
    """What a form would come to, asked while it is filled in; `refused` says why it comes to nothing."""
    quote, refused = None, ""
    try:
        quote = await ask(Form(dict(visit.request.query_params), {}))
    except ApiRefused as error:
        refused = error.code
    return visit.page(template, quote=quote, refused=refused)
