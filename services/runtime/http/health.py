"""Liveness, readiness and metrics of one API: public, but not through the edge. What was verified last: for admins."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.responses import Response

from services.runtime import verified
from services.runtime.http.auth import TheAdmin
from services.runtime.http.problems import Problem
from services.runtime.http.resources import TheResources
from services.runtime.metrics import Metrics
from services.runtime.reader import Rebuilding
from services.runtime.stage import Stage


class LastVerification(BaseModel):
    """`last`: null where `refstream verify` has never run."""

    last: verified.Verified | None


def health_routes(service: str, stages: Sequence[Stage[Any, Any]], metrics: Metrics) -> APIRouter:
    """The routes of a service's operator. `stages`: those whose cells must be open for the API to be ready."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Whether the process answers at all")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @router.get("/readyz", summary="Whether Redis answers and every cell is open")
    async def readyz(has: TheResources) -> dict[str, str]:
        try:
            for stage in stages:
                await has.reader.rows_everywhere(stage, "")  # no key is empty: this only asks every cell if it is open
        except Rebuilding:
            raise Problem(503, "rebuilding", "Not every cell is open yet.", headers={"Retry-After": "1"}) from None
        return {"status": "ready"}

    @router.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def scrape() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @router.get("/verification", summary="What `refstream verify` found last")
    async def verification(who: TheAdmin, has: TheResources) -> LastVerification:
        return LastVerification(last=None if has.redis is None else await verified.last(has.redis, service))

    return router
