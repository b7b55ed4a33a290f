"""Stand-ins for Redis and Kafka behind an API: dictionaries that read like a Reader, a fold that answers at once."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import jwt
from fastapi import APIRouter, FastAPI

from schemas.commands import Answered, Command
from schemas.events import Event
from schemas.programs import Programs
from services.runtime.http import Commands, Resources, service_app
from services.runtime.http.app import takes_commands
from services.runtime.http.rates import RateLimits
from services.runtime.metrics import Metrics
from services.runtime.programs import ProgramsFeed
from services.runtime.reader import Rebuilding
from services.runtime.settings import Settings
from services.runtime.stage import Row, Stage, State

SECRET = "a-secret-for-tests-with-more-than-32-characters"  # pragma: allowlist secret
Decide = Callable[[Event], tuple[int, dict[str, Any]] | None]


def settings(**other: Any) -> Settings:
    return Settings(auth_secret=SECRET, click_secrets={"1": SECRET}, data_secrets={"1": SECRET}, **other)


def bearer(
    role: str = "partner", sub: str = "p-1", *, secret: str = SECRET, alg: str = "HS256", **claims: Any
) -> dict[str, str]:
    """An Authorization header."""
    payload = {"iss": "refstream", "aud": "refstream", "exp": time.time() + 86_400, "role": role, "sub": sub, **claims}
    token = jwt.encode({name: value for name, value in payload.items() if value is not None}, secret, algorithm=alg)
    return {"Authorization": f"Bearer {token}"}


class FakeReader:
    """A Reader over dictionaries. `rebuilding` makes every question raise Rebuilding."""

    def __init__(self) -> None:
        self.by_key: dict[tuple[str, str], Any] = {}
        self.rows_by_key: dict[tuple[str, str], dict[str, Any]] = {}
        self.found: dict[tuple[str, str], str] = {}
        self.decided: dict[str, Answered] = {}
        self.rebuilding = False

    def _open(self) -> None:
        if self.rebuilding:
            raise Rebuilding

    async def state(self, stage: Stage[State, Row], key: str) -> State:
        return (await self.states(stage, [key]))[0]

    async def states(self, stage: Stage[State, Row], keys: Sequence[str]) -> list[State]:
        self._open()
        return [self.by_key.get((stage.name, key), stage.empty) for key in keys]

    async def row(self, stage: Stage[State, Row], key: str, row_id: str) -> Row | None:
        return (await self.rows(stage, key)).get(row_id)

    async def row_each(self, stage: Stage[State, Row], places: Sequence[tuple[str, str]]) -> list[Row | None]:
        return [await self.row(stage, key, row_id) for key, row_id in places]

    async def rows_each(self, stage: Stage[State, Row], keys: Sequence[str]) -> list[dict[str, Row]]:
        return [await self.rows(stage, key) for key in keys]

    async def rows(self, stage: Stage[State, Row], key: str) -> dict[str, Row]:
        self._open()
        return self.rows_by_key.get((stage.name, key), {})

    async def rows_everywhere(self, stage: Stage[State, Row], key: str) -> list[dict[str, Row]]:
        return [await self.rows(stage, key)]

    async def find(self, stage: Stage[Any, Any], name: str) -> str | None:
        self._open()
        return self.found.get((stage.name, name))

    async def keys_of(self, stage: Stage[Any, Any], prefix: str) -> set[str]:
        self._open()
        found = self.found.items()
        return {key for (stage_name, name), key in found if stage_name == stage.name and name.startswith(prefix)}

    async def answers(self, stages: Sequence[Stage[Any, Any]], command_ids: Sequence[str]) -> dict[str, Answered]:
        self._open()
        return {each: self.decided[each] for each in command_ids if each in self.decided}

    async def all_states(self, stage: Stage[State, Row]) -> AsyncIterator[tuple[str, State]]:
        self._open()
        for (name, key), state in self.by_key.items():
            if name == stage.name:
                yield key, state


class FakeFold:
    """The command topic and the fold behind it. `decide` gives status and body, or None to leave it undecided."""

    def __init__(self, reader: FakeReader, decide: Decide) -> None:
        self.reader, self.decide = reader, decide
        self.written: list[Event] = []

    async def write(self, event: Event, key: str) -> None:
        command = event.data
        assert isinstance(command, Command) and command.partner_id == key
        self.written.append(event)
        self.settle(command, self.decide(event))

    def settle(self, command: Command, decision: tuple[int, dict[str, Any]] | None) -> None:
        """What the fold does with a command: the first decision on a command id holds."""
        if decision is not None:
            status, body = decision
            answer = Answered(
                command_id=command.command_id,
                body_hash=command.body_hash,
                caller=command.caller,
                status=status,
                body=body,
            )
            self.reader.decided.setdefault(command.command_id, answer)


def app_over(
    service: str,
    router: APIRouter,
    reader: FakeReader,
    decide: Decide = lambda event: (201, {}),
    stages: Sequence[Stage[Any, Any]] = (),
    programs: Programs | None = None,
) -> tuple[FastAPI, FakeFold]:
    """A service's app over fakes, and the fold that answers its commands."""
    own, fold = settings(), FakeFold(reader, decide)
    commands = None
    if takes_commands(service):
        commands = Commands(service, own, reader, fold.write, Metrics("api"), wait_seconds=0.3)
    return service_app(service, own, router, stages, resources_over(reader, commands, programs)), fold


def resources_over(
    reader: FakeReader,
    commands: Commands | None = None,
    programs: Programs | None = None,
    rates: RateLimits | None = None,
) -> Resources:
    feed = ProgramsFeed(settings())
    feed.programs = programs or Programs()
    return Resources(settings(), reader, feed, commands, rates=rates)
