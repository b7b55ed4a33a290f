"""`refstream token`: a bearer token for trying the API."""

import time
from enum import StrEnum
from typing import Annotated

import jwt
import typer

from services.cli.state import running_settings
from services.runtime.settings import Settings, SettingsRefused

LIFETIME_SECONDS = 12 * 3600


class Role(StrEnum):
    partner = "partner"
    platform = "platform"
    admin = "admin"


def signed(settings: Settings, role: Role, sub: str) -> str:
    """A token signed with the shared secret, good for a working day of the (moved) clock. Raises SettingsRefused."""
    if not settings.auth_secret:
        raise SettingsRefused(
            "there is no shared secret to sign with: start the local stack (`refstream up`) or set "
            "REFSTREAM_AUTH_SECRET; with REFSTREAM_AUTH_JWKS_URL, tokens come from the identity provider"
        )
    now = int(time.time()) + settings.clock_offset
    claims = {
        "iss": settings.auth_issuer,
        "aud": settings.auth_audience,
        "sub": sub,
        "role": role.value,
        "iat": now,
        "exp": now + LIFETIME_SECONDS,
    }
    return jwt.encode(claims, settings.auth_secret.get_secret_value(), algorithm="HS256")


def token(
    role: Annotated[Role, typer.Option(help="What the bearer may do.")],
    sub: Annotated[str | None, typer.Option(help="Who the bearer is: the partner id, for a partner.")] = None,
) -> None:
    """Print a development token, to be sent as `Authorization: Bearer …`."""
    if role is Role.partner and not sub:
        raise typer.BadParameter("a partner's token needs the partner id", param_hint="--sub")
    print(signed(running_settings(), role, sub or role.value))
