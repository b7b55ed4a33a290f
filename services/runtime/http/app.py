"""One service's FastAPI app: routes, errors, authentication, health and what it keeps open."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Path
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from starlette.responses import Response

from schemas.topics import BY_NAME
from services.runtime.codec import Codec
from services.runtime.http.auth import Authenticator, TheCaller, through_the_door
from services.runtime.http.command_log import CommandLog
from services.runtime.http.commands import Commands
from services.runtime.http.health import health_routes
from services.runtime.http.middleware import LimitBody, Measured, SafeHeaders
from services.runtime.http.openapi import DESCRIPTIONS, document
from services.runtime.http.problems import install
from services.runtime.http.rates import RateLimits, counting_client
from services.runtime.http.resources import Resources, TheCommands
from services.runtime.metrics import Metrics
from services.runtime.programs import ProgramsFeed
from services.runtime.redis_client import connect
from services.runtime.redis_reader import RedisReader
from services.runtime.settings import Settings
from services.runtime.stage import Stage

REDIS_CONNECT_SECONDS = 2.0
REDIS_REPLY_SECONDS = 2.0
REDIS_RETRIES = 2  # an API only reads, so a lost reply may be asked for again


def service_app(
    service: str,
    settings: Settings,
    router: APIRouter,
    stages: Sequence[Stage[Any, Any]],
    resources: Resources | None = None,
) -> FastAPI:
    """The app of one service, all of it under `/{service}`.

    `router`: its own routes, without that prefix. `stages`: those it reads and that answer its commands.
    `resources`: instead of Redis and Kafka, for tests. Errors: SettingsRefused for a missing or unsafe secret.
    """
    settings.require_production_secrets()
    metrics = Metrics("api")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as open_things:
            app.state.resources = resources or await _open(service, settings, metrics, open_things)
            yield

    app = FastAPI(
        title=f"refstream {service}",
        version="1",
        description=DESCRIPTIONS[service],
        openapi_tags=[
            {"name": service, "description": DESCRIPTIONS[service]},
            {"name": "health", "description": "For the operator; not through the edge."},
        ],
        openapi_url=f"/{service}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.service = service
    app.state.authenticator = Authenticator(settings)
    install(app, through_the_door)
    app.include_router(router, prefix=f"/{service}", tags=[service])
    if takes_commands(service):
        app.include_router(_command_routes(stages), prefix=f"/{service}", tags=[service])
    app.include_router(health_routes(service, stages, metrics), prefix=f"/{service}")
    app.add_middleware(LimitBody)
    app.add_middleware(SafeHeaders)
    app.add_middleware(Measured, service=service, metrics=metrics)
    app.openapi = lambda: _once(app)  # type: ignore[method-assign]
    return app


def _once(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        app.openapi_schema = document(app)
    return app.openapi_schema


def takes_commands(service: str) -> bool:
    return f"commands.{service}" in BY_NAME


async def _open(service: str, settings: Settings, metrics: Metrics, open_things: AsyncExitStack) -> Resources:
    """Everything an API needs, closed again in reverse order by `open_things`."""
    redis = connect(
        settings.redis_url(),
        socket_connect_timeout=REDIS_CONNECT_SECONDS,
        socket_timeout=REDIS_REPLY_SECONDS,
        health_check_interval=30,
        retry=Retry(ExponentialBackoff(cap=0.1, base=0.01), REDIS_RETRIES),
    )
    open_things.push_async_callback(redis.aclose)
    reader = RedisReader(settings.partitions, redis, Codec.of(settings))
    feed = ProgramsFeed(settings)
    open_things.push_async_callback(feed.stop)  # before the start: one that fails half-way leaves a client open
    await feed.start()
    commands = None
    if takes_commands(service):
        log = CommandLog(settings)
        open_things.push_async_callback(log.stop)
        await log.start()
        commands = Commands(service, settings, reader, log.write, metrics)
    counting = counting_client(settings)
    open_things.push_async_callback(counting.aclose)
    return Resources(settings, reader, feed, commands, redis, RateLimits.over(settings, counting))


def _command_routes(stages: Sequence[Stage[Any, Any]]) -> APIRouter:
    router = APIRouter()

    @router.get(
        "/commands/{ticket}",
        summary="The decision on a command that was answered 202",
        response_class=Response,
        responses={200: {"description": "As the POST would have answered."}, 202: {"description": "Not decided yet."}},
    )
    async def command(
        ticket: Annotated[str, Path(max_length=256, description="from `Location`")],
        who: TheCaller,
        commands: TheCommands,
    ) -> Response:
        return await commands.look_up(who, stages, ticket)

    return router
