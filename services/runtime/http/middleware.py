"""What happens to every request, whatever its route. Plain ASGI: no task in between, so a hang-up cancels nothing."""

import asyncio
import re
import time
from collections.abc import Callable, Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.runtime.http.problems import ALWAYS, Problem, invalid
from services.runtime.http.queries import route_template
from services.runtime.metrics import HTTP_REQUEST_SECONDS, HTTP_REQUESTS, Metrics

BODY_LIMIT_BYTES = 64 * 1024
BODY_SECONDS = 10.0
BODY_DEPTH = 32
"""Of objects and lists in each other: more than any body needs, and far less than what tires a parser."""

_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
UNMATCHED = "(none)"


def _too_large() -> Problem:
    return Problem(413, "too_large", f"A body holds {BODY_LIMIT_BYTES} bytes at most.", headers={"Connection": "close"})


def _too_slow() -> Problem:
    detail = f"A body is sent whole, within {BODY_SECONDS:.0f} seconds."
    return Problem(408, "too_slow", detail, headers={"Connection": "close"})


def nesting(body: bytes) -> int:
    """How deep objects and lists lie in each other, in a body that need not be JSON."""
    deepest = depth = 0
    for byte in _TEXT.sub(b"", body):
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


class LimitBody:
    """Reads a body before the app sees the request: 413 for a long one, 408 for a slow one, 422 for a deep one."""

    def __init__(self, app: ASGIApp, body_seconds: float = BODY_SECONDS) -> None:
        self._app, self._body_seconds = app, body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > BODY_LIMIT_BYTES:
            await _too_large().response()(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._body_seconds):
                messages = await _read(receive)
        except TimeoutError:
            await _too_slow().response()(scope, receive, send)
            return
        except Problem as problem:
            await problem.response()(scope, receive, send)
            return
        await self._app(scope, _replayed(messages, receive), send)


async def _read(receive: Receive) -> list[Message]:
    """All of a body. Errors: Problem 408 where the caller hung up, 413, 422."""
    messages, size, more = list[Message](), 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _too_slow()
        messages.append(message)
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
        if size > BODY_LIMIT_BYTES:
            raise _too_large()
    body = b"".join(message.get("body", b"") for message in messages)
    if b"\0" in body:  # UTF-16 and UTF-32 have some in every bracket, and would hide how deep they go
        raise invalid("body", "Write a JSON object in UTF-8.")
    if body.count(b"[") + body.count(b"{") > BODY_DEPTH and nesting(body) > BODY_DEPTH:
        raise invalid("body", f"Nest objects and lists {BODY_DEPTH} deep at most.")
    return messages


def _replayed(messages: list[Message], receive: Receive) -> Receive:
    """First what was read already, then what comes."""
    waiting = iter(messages)

    async def again() -> Message:
        message = next(waiting, None)
        return message if message is not None else await receive()

    return again


class SafeHeaders:
    """Headers that no route must forget: nothing is cached or sniffed unless a route says otherwise."""

    def __init__(self, app: ASGIApp, always: Mapping[str, str] = ALWAYS) -> None:
        self._app, self._always = app, always

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._always.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, sending)


class Measured:
    """Counts and times requests by route template; ids never become labels."""

    def __init__(self, app: ASGIApp, service: str, metrics: Metrics, clock: Callable[[], float] = time.perf_counter):
        self._app, self._service, self._metrics, self._clock = app, service, metrics, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = 500, self._clock()

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            route = route_template(scope, self._service) or UNMATCHED
            method = scope["method"] if route != UNMATCHED else UNMATCHED
            self._metrics[HTTP_REQUESTS].labels(self._service, route, method, str(status)).inc()
            self._metrics[HTTP_REQUEST_SECONDS].labels(self._service, route, method).observe(self._clock() - began)
