"""Bearer tokens that refstream signs itself, with the shared secret."""

import time

import jwt

from services.runtime.settings import Settings, SettingsRefused


def signed_token(settings: Settings, role: str, sub: str, seconds: int, audience: str | None = None) -> str:
    """An HS256 token, good for so many seconds of the (moved) clock.

    `role`: partner, platform or admin. `audience`: another than the APIs', for a token that no API takes.
    Errors: SettingsRefused without a shared secret.
    """
    if not settings.auth_secret:
        raise SettingsRefused(
            "there is no shared secret to sign with: start the local stack (`refstream up`) or set "
            "REFSTREAM_AUTH_SECRET; with REFSTREAM_AUTH_JWKS_URL, tokens come from the identity provider"
        )
    now = int(time.time()) + settings.clock_offset
    claims = {
        "iss": settings.auth_issuer,
        "aud": audience or settings.auth_audience,
        "sub": sub,
        "role": role,
        "iat": now,
        "exp": now + seconds,
    }
    return jwt.encode(claims, settings.auth_secret.get_secret_value(), algorithm="HS256")
