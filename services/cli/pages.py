"""`refstream pages`: the portal and the desk in the foreground."""

from typing import Annotated

import typer

from services.cli.api import serve
from services.cli.state import running_settings


def pages(
    port: Annotated[int | None, typer.Option(help="Port to listen on, instead of REFSTREAM_PORT.")] = None,
) -> None:
    """Serve the portal and the desk alone, in the foreground, until SIGTERM; `api` without a name has them too.

    They ask the APIs at REFSTREAM_API_URL, and sign with REFSTREAM_AUTH_SECRET.
    """
    from services.cli.edge import Edge
    from services.cli.edge import pages as app_of_pages

    settings = running_settings()
    listening = settings if port is None else settings.model_copy(update={"port": port})
    serve(listening, lambda is_ending: Edge(app_of_pages(listening, is_ending)))
