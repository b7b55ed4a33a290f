"""What an API needs while it runs, opened once and kept at `app.state.resources`."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from redis.asyncio import Redis

from schemas.programs import Programs
from services.runtime.http.commands import Commands
from services.runtime.http.rates import RateLimits
from services.runtime.programs import ProgramsFeed
from services.runtime.reader import Reader
from services.runtime.settings import Settings


@dataclass(frozen=True)
class Resources:
    """`redis`, `commands` and `rates` are None where there are none: over a test's fake reader, in a service without
    commands."""

    settings: Settings
    reader: Reader
    programs_feed: ProgramsFeed
    commands: Commands | None = None
    redis: Redis | None = None
    rates: RateLimits | None = None

    @property
    def programs(self) -> Programs:
        """Every published program version, as far as the API has read."""
        return self.programs_feed.programs

    async def latest_version(self, program_id: str) -> int | None:
        """A program's latest version of all that are on the topic by now, for a command to be decided by; None where
        there is none. One round trip to the broker."""
        await self.programs_feed.catch_up()
        latest = self.programs.latest(program_id)
        return latest.version if latest else None


async def resources(request: Request) -> Resources:
    """The dependency behind `TheResources`."""
    found: Resources = request.app.state.resources
    return found


async def commands(request: Request) -> Commands:
    """The dependency behind `TheCommands`. Errors: RuntimeError in a service without a command topic."""
    found: Resources = request.app.state.resources
    if found.commands is None:
        raise RuntimeError("this service takes no commands")
    return found.commands


TheResources = Annotated[Resources, Depends(resources)]
"""Parameter type of a route that reads state: `has: TheResources`."""

TheCommands = Annotated[Commands, Depends(commands)]
"""Parameter type of a route that changes something: `commands: TheCommands`."""
