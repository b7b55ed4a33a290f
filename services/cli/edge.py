"""The four APIs and the pages behind one port, as the local stack serves them, by the first segment of the path."""

import importlib
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack
from typing import Any

import httpx
from fastapi import FastAPI

from services.cli.service import Service
from services.runtime.settings import Settings

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
PAGES = ("portal", "admin")
NOT_FOUND = b'{"type":"about:blank","title":"Not Found","status":404,"code":"not_found"}'


def app_of(service: str, settings: Settings) -> FastAPI:
    """One service's API. Its routes carry the service's prefix already."""
    app: FastAPI = importlib.import_module(f"services.{service}.api").create_app(settings)
    return app


def pages(
    settings: Settings, is_ending: Callable[[], bool], apis: httpx.AsyncBaseTransport | None = None
) -> dict[str, FastAPI]:
    """The portal and the desk: one app at two places. `apis`: how it reaches them, if not over the network."""
    from services.portal.app import create_app

    return dict.fromkeys(PAGES, create_app(settings, apis, is_ending))


def edge(settings: Settings, is_ending: Callable[[], bool]) -> "Edge":
    """All of them; without the pages where the APIs take the tokens of a key set, unless a setting asks for pages.

    The pages are a client of the APIs here too, without the way through the network. `is_ending`: whether the server is
    being stopped. Errors: SettingsRefused for pages that could not sign.
    """
    everything = Edge({service.value: app_of(service.value, settings) for service in Service})
    if settings.auth_jwks_url and not settings.oidc_issuer:
        log.warning("no pages: they cannot sign what the APIs take with REFSTREAM_AUTH_JWKS_URL")
    else:
        beside = httpx.ASGITransport(_told(everything), raise_app_exceptions=False)
        everything.add(pages(settings, is_ending, None if settings.api_url else beside))
    return everything


def _told(everything: "Edge") -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The same application; the traceback that a server would log is logged here, where there is none in between."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await everything(scope, receive, send)
        except Exception:
            log.exception("an api failed")
            raise

    return app


class Edge:
    """An ASGI application over several. `apps`: by the first segment of the paths that are theirs."""

    def __init__(self, apps: dict[str, FastAPI]) -> None:
        self._apps = apps

    def add(self, apps: dict[str, FastAPI]) -> None:
        """More of them, before the first request."""
        self._apps |= apps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif app := self._apps.get(scope["path"].split("/")[1]):
            await app(scope, receive, send)
        elif scope["type"] == "http":
            headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(NOT_FOUND))]
            await send({"type": "http.response.start", "status": 404, "headers": headers})
            await send({"type": "http.response.body", "body": NOT_FOUND})
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _live(self, receive: Receive, send: Send) -> None:
        """Open every app before the first request, close them in reverse after the last."""
        await receive()
        try:
            async with AsyncExitStack() as opened:
                for app in dict.fromkeys(self._apps.values()):
                    await opened.enter_async_context(app.router.lifespan_context(app))
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Exception as error:
            # Said before or after the start, this ends the server; the message is what its log shows.
            await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
            raise
        await send({"type": "lifespan.shutdown.complete"})
