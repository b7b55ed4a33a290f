"""Reward store: credits, what they buy, and where they came from."""

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from services.portal.partner import Program, ProgramId, add, standing
from services.portal.visit import Form, ThePartner, Visit

router = APIRouter()
MOVEMENTS, FRIENDS = 25, 50


@add("store", "Reward store", "credits")
async def load(visit: Visit, program: Program) -> dict[str, Any]:
    own = {"program_id": program.program_id}
    after = visit.request.query_params.get("after")
    store, history, friends = await asyncio.gather(
        visit.api.get("/rewards/partners/{}/store", visit.sub, **own),
        visit.api.get("/rewards/partners/{}/history", visit.sub, **own, limit=MOVEMENTS, cursor=after),
        visit.api.get("/attribution/partners/{}/referrals", visit.sub, **own, limit=FRIENDS),
    )
    return {"store": store, "history": history, "friends": friends}


@router.post("/portal/{program_id}/store/claims")
async def claim(visit: ThePartner, program_id: ProgramId) -> Response:
    async def act(form: Form) -> None:
        body = {"program_id": program_id, "provider": form["provider"]}
        await visit.api.post("/rewards/partners/{}/claims", visit.sub, body=body, key=form["key"])

    return await standing(visit, "store", program_id).tried(act, "claim")
