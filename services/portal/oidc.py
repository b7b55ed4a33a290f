"""Signing in with an OpenID Connect provider: the code flow with PKCE, for platforms that have one.

What begins at the provider ends in the same session as a link does. `sub` of the ID token is the partner id; a claim
`role` of `admin` opens the desk. Between the two requests a signed cookie holds what belongs together, for ten minutes.
"""

import base64
import hashlib
import hmac
import secrets
from typing import Any
from urllib.parse import urlencode

import httpx
import jwt
from fastapi import APIRouter, Request
from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.responses import RedirectResponse, Response

from services.portal.session import Session
from services.portal.visit import rendered, signed_in
from services.runtime.settings import Settings, SettingsRefused

COOKIE, COOKIE_SECONDS = "refstream_oidc", 600
BACK = "/portal/oidc/back"
ALGORITHMS = ["RS256", "ES256"]
LEEWAY_SECONDS = 60  # the provider's clock is another one


class SignInRefused(Exception):
    """The provider's answer does not sign anybody in. The message is for the log."""


class Provider:
    """The provider that the settings name. Errors: SettingsRefused for settings that do not suffice."""

    def __init__(self, settings: Settings) -> None:
        issuer, client_id, client_secret = settings.oidc_issuer, settings.oidc_client_id, settings.oidc_client_secret
        if not (issuer and client_id and client_secret and settings.auth_secret and settings.public_url):
            raise SettingsRefused(
                "signing in with REFSTREAM_OIDC_ISSUER needs REFSTREAM_OIDC_CLIENT_ID, "
                "REFSTREAM_OIDC_CLIENT_SECRET and REFSTREAM_PUBLIC_URL"
            )
        self._issuer, self._login = issuer, (client_id, client_secret.get_secret_value())
        self._back = settings.public_url.rstrip("/") + BACK
        self._cookies = URLSafeTimedSerializer(settings.auth_secret.get_secret_value(), salt="refstream.pages.oidc")
        self.http: httpx.AsyncClient | None = None  # as long as the app is open

    async def begin(self) -> tuple[str, str]:
        """Where to send the browser, and the cookie that it brings back. Errors: SignInRefused."""
        told = await self._told()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "scope": "openid",
            "client_id": self._login[0],
            "redirect_uri": self._back,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return f"{told['authorization_endpoint']}?{urlencode(asked)}", self._cookies.dumps([state, nonce, verifier])

    async def end(self, cookie: str, state: str, code: str) -> Session:
        """The session of whoever came back. Errors: SignInRefused."""
        try:
            known, nonce, verifier = self._cookies.loads(cookie, max_age=COOKIE_SECONDS)
        except (BadSignature, ValueError):
            raise SignInRefused("there is no beginning, or it is too long ago") from None
        if not hmac.compare_digest(known.encode(), state.encode()):
            raise SignInRefused("the answer is to another question")
        told = await self._told()
        given = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._back,
            "code_verifier": verifier,
        }
        tokens = await self._ask("POST", told["token_endpoint"], given)
        keys = await self._ask("GET", told["jwks_uri"])
        claims = self._claims(tokens.get("id_token"), keys)
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
            raise SignInRefused("the token is of another sign-in")
        return Session(
            "admin" if claims.get("role") == "admin" else "partner", claims["sub"], secrets.token_urlsafe(16)
        )

    def _claims(self, token: Any, keys: dict[str, Any]) -> dict[str, Any]:
        """What the provider's ID token says, checked against its keys and for this client."""
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
            usable = [key for key in jwt.PyJWKSet.from_dict(keys).keys if key_id in (None, key.key_id)]
            claims = jwt.decode(
                token,
                usable[0].key,
                algorithms=ALGORITHMS,
                audience=self._login[0],
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError, IndexError) as error:
            raise SignInRefused(f"the token is not good: {type(error).__name__}") from None
        if not isinstance(claims["sub"], str) or not claims["sub"]:
            raise SignInRefused("the token names nobody")
        return claims

    async def _told(self) -> dict[str, Any]:
        told = await self._ask("GET", f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        if told.get("issuer") != self._issuer:
            raise SignInRefused("the provider calls itself otherwise")
        return told

    async def _ask(self, method: str, address: str, form: dict[str, str] | None = None) -> dict[str, Any]:
        if self.http is None:
            raise SignInRefused("the pages are not open")
        try:
            answer = await self.http.request(method, address, data=form, auth=self._login if form else None)
            answer.raise_for_status()
            told: dict[str, Any] = answer.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise SignInRefused(f"{address} does not answer: {type(error).__name__}") from None
        return told


router = APIRouter()


def _provider(request: Request) -> Provider:
    provider: Provider | None = request.app.state.provider
    if provider is None:
        raise SignInRefused("no provider is set")
    return provider


@router.get("/portal/oidc")
async def begin(request: Request) -> Response:
    address, cookie = await _provider(request).begin()
    response = RedirectResponse(address, 303)
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=COOKIE_SECONDS,
        path="/portal/oidc",
        httponly=True,
        samesite="lax",
        secure=request.app.state.is_secure,
    )
    return response


@router.get(BACK)
async def back(request: Request, state: str = "", code: str = "") -> Response:
    session = await _provider(request).end(request.cookies.get(COOKIE, ""), state, code)
    response = signed_in(request, session)
    response.delete_cookie(COOKIE, path="/portal/oidc")
    return response


def refused(request: Request) -> Response:
    """What a sign-in that failed shows."""
    return rendered(request, "sign_in.html", 401, refused=True)
