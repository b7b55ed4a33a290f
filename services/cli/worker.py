"""`refstream worker`: one service's worker in the foreground."""

from typing import Annotated, Any

import typer

from services.cli.service import Service
from services.cli.state import running_settings
from services.runtime.settings import Settings


def worker(service: Annotated[Service, typer.Argument(help="Whose worker.")]) -> None:
    """Run one service's worker in the foreground, until SIGTERM, which hands its partitions over.

    Start as many as there are partitions, on as many machines as you like: they share the partitions among them.
    """
    from services.runtime.worker import run_worker

    settings = running_settings()
    settings.require_production_secrets()
    _speak_to_kafka_as(settings)
    run_worker(service.value, settings)


def _speak_to_kafka_as(settings: Settings) -> None:
    """Let Faust's own clients say who they are, as all others do."""
    import faust

    options = settings.kafka_client_options()
    credentials: Any = None
    if "sasl_mechanism" in options:
        credentials = faust.SASLCredentials(
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            mechanism=options["sasl_mechanism"],
            ssl_context=options.get("ssl_context"),
        )
    elif "ssl_context" in options:
        credentials = faust.SSLCredentials(options["ssl_context"])

    def configure(app: Any, conf: Any, **_: Any) -> None:
        conf.broker_credentials = credentials

    faust.App.on_configured.connect(configure)
