"""`refstream token`: a bearer token for trying the API."""

from enum import StrEnum
from typing import Annotated

import typer

from services.cli.state import running_settings
from services.runtime.settings import Settings
from services.runtime.tokens import signed_token

LIFETIME_SECONDS = 12 * 3600


class Role(StrEnum):
    partner = "partner"
    platform = "platform"
    admin = "admin"


def signed(settings: Settings, role: Role, sub: str) -> str:
    """A token signed with the shared secret, good for a working day of the (moved) clock. Raises SettingsRefused."""
    return signed_token(settings, role.value, sub, LIFETIME_SECONDS)


def token(
    role: Annotated[Role, typer.Option(help="What the bearer may do.")],
    sub: Annotated[str | None, typer.Option(help="Who the bearer is: the partner id, for a partner.")] = None,
) -> None:
    """Print a development token, to be sent as `Authorization: Bearer …`."""
    if role is Role.partner and not sub:
        raise typer.BadParameter("a partner's token needs the partner id", param_hint="--sub")
    print(signed(running_settings(), role, sub or role.value))
