"""Liveness, readiness and metrics of one worker, on a port of its own.

Alive is a worker whose event loop moves: a probe's question goes through the loop. One that stands still would keep its
cells from everybody, since a thread of its own tells the group that it lives. What Redis or Kafka do is no part of it:
starting anew mends neither. Ready is a worker that has opened every cell it was assigned, also where that is none.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import make_wsgi_app, start_http_server

from services.runtime.metrics import Metrics
from services.runtime.settings import Settings

MOVES_WITHIN_SECONDS = 5.0

Answers = Callable[[], bool]
Wsgi = Callable[[Mapping[str, Any], Callable[..., Any]], Iterable[bytes]]


def serve(settings: Settings, metrics: Metrics, is_ready: Answers) -> None:
    """Answer on the setting's port, if there is one, in threads that end with the process.

    Called in the loop that is to be watched. `is_ready`: asked from another thread.
    """
    if settings.metrics_port is not None:
        loop = asyncio.get_running_loop()
        server, _ = start_http_server(settings.metrics_port, settings.host, metrics.registry)
        probes = {"/healthz": lambda: _moves(loop), "/readyz": is_ready}
        server.set_app(_probed(make_wsgi_app(metrics.registry), probes))


def _moves(loop: asyncio.AbstractEventLoop) -> bool:
    moved = threading.Event()
    loop.call_soon_threadsafe(moved.set)
    return moved.wait(MOVES_WITHIN_SECONDS)


def _probed(metrics: Wsgi, probes: Mapping[str, Answers]) -> Wsgi:
    """The probes by their paths; whatever else is asked for is the metrics'."""

    def app(environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if (probe := probes.get(environ["PATH_INFO"])) is None:
            return metrics(environ, start_response)
        yes = probe()
        start_response("200 OK" if yes else "503 Service Unavailable", [("Content-Type", "text/plain")])
        return [b"yes\n" if yes else b"no\n"]

    return app
