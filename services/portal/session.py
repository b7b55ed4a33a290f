"""Who is signed in: a short-lived signed link makes a session cookie, and forms carry a token bound to it.

The link is a bearer token for the audience of the pages alone, so that no API takes it and the pages take no API's
token. A platform makes one for a partner it knows with any JWT library; `refstream token --link` does the same.
"""

import hmac
import secrets
import time
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

import jwt
from itsdangerous import BadSignature, Signer, URLSafeTimedSerializer

from services.runtime.settings import Settings, SettingsRefused
from services.runtime.tokens import signed_token

COOKIE = "refstream_session"
SESSION_SECONDS = 12 * 3600
LINK_SECONDS = 15 * 60
"""The longest that a link may be good for: it stands in a browser's history."""
API_TOKEN_SECONDS = 60

Role = Literal["partner", "admin"]


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in browser. `nonce`: what its forms' tokens are bound to."""

    role: Role
    sub: str
    nonce: str


def link_audience(settings: Settings) -> str:
    return f"{settings.auth_audience}-pages"


def signed_link(settings: Settings, url: str, role: str, sub: str) -> str:
    """An address that signs a browser in. Errors: SettingsRefused without a shared secret."""
    token = signed_token(settings, role, sub, LINK_SECONDS, link_audience(settings))
    return f"{url.rstrip('/')}/portal/enter?token={quote(token)}"


class Sessions:
    """Makes and reads what browsers carry. Errors: SettingsRefused where the APIs take no token of ours."""

    def __init__(self, settings: Settings) -> None:
        if settings.auth_jwks_url:
            raise SettingsRefused(
                "the pages cannot sign what the APIs take with REFSTREAM_AUTH_JWKS_URL: unset it and give all of them "
                "REFSTREAM_AUTH_SECRET; people can sign in at your provider all the same, with REFSTREAM_OIDC_ISSUER"
            )
        if not settings.auth_secret:
            raise SettingsRefused("the pages sign with REFSTREAM_AUTH_SECRET: give one (`openssl rand -hex 32`)")
        self._settings, secret = settings, settings.auth_secret.get_secret_value()
        self._secret = secret
        self._cookies = URLSafeTimedSerializer(secret, salt="refstream.pages.session")
        self._forms = Signer(secret, salt="refstream.pages.form")

    def entered(self, token: str) -> Session | None:
        """The session that a link opens; None for a link that is none of ours, is over, or is good for too long."""
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=["HS256"],
                audience=link_audience(self._settings),
                issuer=self._settings.auth_issuer,
                options={"require": ["exp", "iss", "aud", "sub"], "verify_exp": False, "verify_iat": False},
            )
        except (jwt.PyJWTError, ValueError):
            return None
        now = int(time.time()) + self._settings.clock_offset
        if not isinstance(claims["exp"], int) or not now < claims["exp"] <= now + LINK_SECONDS:
            return None
        role, sub = claims.get("role"), claims["sub"]
        if role not in ("partner", "admin") or not isinstance(sub, str) or not sub:
            return None
        return Session(role, sub, secrets.token_urlsafe(16))

    def write(self, session: Session) -> str:
        """The cookie's value."""
        return self._cookies.dumps([session.role, session.sub, session.nonce])

    def read(self, cookie: str) -> Session | None:
        """The session of a cookie, None for anything that was not written here or is older than a working day."""
        try:
            role, sub, nonce = self._cookies.loads(cookie, max_age=SESSION_SECONDS)
        except (BadSignature, ValueError):
            return None
        return Session(role, sub, nonce)

    def form_token(self, session: Session) -> str:
        """What every form of the session carries."""
        return self._forms.get_signature(session.nonce).decode()

    def is_own_form(self, session: Session, token: str) -> bool:
        return hmac.compare_digest(self.form_token(session).encode(), token.encode())

    def api_token(self, session: Session) -> str:
        """A bearer token for the APIs: the session's user, for a minute."""
        return signed_token(self._settings, session.role, session.sub, API_TOKEN_SECONDS)
