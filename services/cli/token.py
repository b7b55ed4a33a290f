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


def sign_in_link(settings: Settings, role: Role, sub: str) -> str:
    """An address that signs a browser in to the pages. Raises SettingsRefused."""
    from services.portal.session import signed_link

    return signed_link(settings, settings.public_url or f"http://127.0.0.1:{settings.port}", role.value, sub)


def token(
    role: Annotated[Role, typer.Option(help="What the bearer may do.")],
    sub: Annotated[str | None, typer.Option(help="Who the bearer is: the partner id, for a partner.")] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Print an address that signs a browser in to the pages, for 15 minutes.")
    ] = False,
) -> None:
    """Print a development token, to be sent as `Authorization: Bearer …`."""
    if role is Role.partner and not sub:
        raise typer.BadParameter("a partner's token needs the partner id", param_hint="--sub")
    if link and role is Role.platform:
        raise typer.BadParameter("the pages are for partners and administrators", param_hint="--link")
    make = sign_in_link if link else signed
    print(make(running_settings(), role, sub or role.value))
