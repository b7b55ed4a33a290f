"""What happens to every request, whatever its route. Plain ASGI: no task in between, so a hang-up cancels nothing."""

import time
from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.runtime.http.problems import ALWAYS, Problem
from services.runtime.http.queries import route_template
from services.runtime.metrics import Metrics

BODY_LIMIT_BYTES = 64 * 1024
UNMATCHED = "(none)"


def _too_large() -> Problem:
    return Problem(413, "too_large", f"A body holds {BODY_LIMIT_BYTES} bytes at most.", headers={"Connection": "close"})


class LimitBody:
    """Reads a body up to the limit before the app sees the request; a longer one is answered 413."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > BODY_LIMIT_BYTES:
            await _too_large().response()(scope, receive, send)
            return
        messages, size, more = list[Message](), 0, True
        while more:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
            if size > BODY_LIMIT_BYTES:
                await _too_large().response()(scope, receive, send)
                return
        await self._app(scope, _replayed(messages, receive), send)


def _replayed(messages: list[Message], receive: Receive) -> Receive:
    """First what was read already, then what comes."""
    waiting = iter(messages)

    async def again() -> Message:
        message = next(waiting, None)
        return message if message is not None else await receive()

    return again


class SafeHeaders:
    """Headers that no route must forget: nothing is cached or sniffed unless a route says otherwise."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in ALWAYS.items():
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
            self._metrics.requests.labels(self._service, route, method, str(status)).inc()
            self._metrics.request_seconds.labels(self._service, route, method).observe(self._clock() - began)
