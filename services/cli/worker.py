"""`refstream worker`: one service's worker in the foreground."""

from typing import Annotated

import typer

from services.cli.service import Service
from services.cli.state import running_settings


def worker(service: Annotated[Service, typer.Argument(help="Whose worker.")]) -> None:
    """Run one service's worker in the foreground, until SIGTERM, which hands its partitions over.

    Start as many as there are partitions, on as many machines as you like: they share the partitions among them.
    """
    from services.runtime.worker import run_worker

    settings = running_settings()
    settings.require_production_secrets()
    run_worker(service.value, settings)
