"""The app around the pages: signing in and out, languages, static files, errors, and headers that no page forgets."""

import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from services.portal import clients, companies, desk, oidc, partner, payouts, referrals, start, statistics, store
from services.portal.client import ApiRefused
from services.portal.oidc import SignInRefused
from services.portal.session import COOKIE, Sessions
from services.portal.visit import (
    HERE,
    LANGUAGE_COOKIE,
    Anybody,
    FormRefused,
    NotSignedIn,
    rendered,
    signed_in,
)
from services.portal.words import LANGUAGES
from services.runtime.http.middleware import LimitBody, SafeHeaders
from services.runtime.settings import Settings

log = logging.getLogger(__name__)

_OURS = re.compile(r"/(portal|admin)([/?][^\\]*)?$")
API_SECONDS = 15.0
YEAR_SECONDS = 365 * 86_400
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; object-src 'none'; frame-ancestors 'none'; "
    "form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def never() -> bool:
    return False


def create_app(
    settings: Settings,
    transport: httpx.AsyncBaseTransport | None = None,
    is_ending: Callable[[], bool] = never,
    identity: httpx.AsyncBaseTransport | None = None,
) -> FastAPI:
    """The pages.

    `transport`: to the APIs, if not over the network. `is_ending`: whether the server is being stopped, so that open
    pages let it go. `identity`: to the identity provider, for tests. Errors: SettingsRefused.
    """
    sessions = Sessions(settings)
    provider = oidc.Provider(settings) if settings.oidc_issuer else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        async with httpx.AsyncClient(
            base_url=api_url(settings), timeout=API_SECONDS, limits=limits, transport=transport, trust_env=False
        ) as http:
            app.state.http = http
            async with httpx.AsyncClient(timeout=API_SECONDS, transport=identity) as outside:
                if provider is not None:
                    provider.http = outside
                yield

    app = FastAPI(title="refstream pages", openapi_url=None, redirect_slashes=False, lifespan=lifespan)
    app.state.sessions, app.state.is_ending = sessions, is_ending
    app.state.provider = provider
    app.state.settings, app.state.now = settings, settings.now
    app.state.is_secure = (settings.public_url or "").lower().startswith("https:")
    _install_errors(app)
    _add_entrances(app)
    app.include_router(oidc.router)
    app.mount("/portal/static", _Kept(directory=HERE / "static"))
    for module in (partner, start, referrals, payouts, statistics, store, companies, clients):
        app.include_router(module.router)
    app.include_router(partner.by_name)
    for page in desk.MODULES:
        app.include_router(page.router)
    app.add_middleware(LimitBody)
    app.add_middleware(SafeHeaders, always=HEADERS)
    return app


def api_url(settings: Settings) -> str:
    """Where the APIs are."""
    return settings.api_url or f"http://127.0.0.1:{settings.port}"


class _Kept(StaticFiles):
    """Files that browsers keep: their addresses change with their content."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers["Cache-Control"] = f"public, max-age={YEAR_SECONDS}, immutable"
        return response


def _add_entrances(app: FastAPI) -> None:
    """Signing in and out, and the language: what needs no session."""

    @app.get("/portal/enter")
    async def enter(request: Request, token: str = "") -> Response:
        session = app.state.sessions.entered(token)
        if session is None:
            return rendered(request, "sign_in.html", 401, refused=True)
        return signed_in(request, session)

    @app.get("/portal/language")
    async def language(to: str = "", back: str = "") -> Response:
        """`back`: a page of ours; anything else leads to the first one."""
        ours = _OURS.match(back)
        response = RedirectResponse(back if ours else "/portal", 303)
        if to in LANGUAGES:
            response.set_cookie(
                LANGUAGE_COOKIE, to, max_age=YEAR_SECONDS, samesite="lax", httponly=True, secure=app.state.is_secure
            )
        return response

    @app.post("/portal/leave")
    async def leave(visit: Anybody) -> Response:
        await visit.form()
        response = RedirectResponse("/portal", 303)
        response.delete_cookie(COOKIE)
        return response


def _install_errors(app: FastAPI) -> None:
    """Every error is a page that says it in words."""

    def problem(request: Request, status: int, code: str) -> Response:
        return rendered(request, "problem.html", status, number=status, code=code)

    async def raised(request: Request, error: Exception) -> Response:
        match error:
            case NotSignedIn():
                return rendered(request, "sign_in.html", 401, refused=False)
            case SignInRefused():
                log.warning("sign-in refused", extra={"why": str(error)})
                return oidc.refused(request)
            case FormRefused():
                return problem(request, 403, "form_refused")
            case ApiRefused(status=404):  # an id that cannot exist, and one of somebody else
                return problem(request, 404, "not_found")
            case ApiRefused():
                return problem(request, error.status, error.code)
            case RequestValidationError():
                return problem(request, 404, "not_found")
            case HTTPException():
                code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "unavailable")
                return problem(request, error.status_code, code)
            case _:  # the server logs the traceback; this answer goes past the middleware
                response = problem(request, 500, "internal")
                response.headers.update(HEADERS)
                return response

    for kind in (NotSignedIn, SignInRefused, FormRefused, ApiRefused, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, raised)
