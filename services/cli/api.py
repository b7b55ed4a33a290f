"""`refstream api`: the HTTP API, with the pages, in the foreground."""

import contextlib
import logging
from collections.abc import Callable
from typing import Annotated, Any

import typer

from services.cli.service import Service
from services.cli.state import running_settings
from services.runtime import garbage
from services.runtime.settings import Settings

STARTUP_FAILURE = 3
IsEnding = Callable[[], bool]
SHUTDOWN_SECONDS = 10  # requests under way may finish; a command waits for its decision for 5 s at most


def api(
    service: Annotated[
        Service | None, typer.Argument(help="Whose API; without it all four and the pages on one port.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, instead of REFSTREAM_PORT.")] = None,
) -> None:
    """Serve one service's HTTP API, or all four and the pages, in the foreground, until SIGTERM."""
    from services.cli.edge import app_of, edge

    settings = running_settings()
    listening = settings if port is None else settings.model_copy(update={"port": port})
    serve(listening, lambda is_ending: app_of(service.value, listening) if service else edge(listening, is_ending))


def serve(settings: Settings, make: Callable[[IsEnding], Any]) -> None:
    """Serve an application until SIGTERM. `make`: builds it, given whether the server is being stopped."""
    import uvicorn

    settings.require_production_secrets()
    # basicConfig and not uvicorn's own set-up: one format for all that is logged here.
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # the pages' requests: a line for each would name partners
    config = uvicorn.Config(
        make(lambda: server.should_exit),
        host=settings.host,
        port=settings.port,
        lifespan="on",
        log_config=None,
        access_log=False,  # metrics count requests; a line per request would name partners
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    server = uvicorn.Server(config)
    garbage.collect_seldom()
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        raise typer.Exit(STARTUP_FAILURE)
