"""Start: the link, further links, promo codes, and the program's terms."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from services.portal import terms
from services.portal.partner import Program, ProgramId, add, standing
from services.portal.visit import Form, ThePartner, Visit

router = APIRouter()


@add("start", "Start")
async def load(visit: Visit, program: Program) -> dict[str, Any]:
    mine = await visit.api.get("/attribution/partners/{}", visit.sub)
    own = {name: [each for each in mine[name] if each["program_id"] == program.program_id] for name in _LISTS}
    return own | {"told_terms": terms.sentences(program.document, visit.words)}


_LISTS = ("links", "promo_codes")


@router.post("/portal/{program_id}/start/links")
async def create_link(visit: ThePartner, program_id: ProgramId) -> Response:
    async def act(form: Form) -> None:
        body = {"program_id": program_id} | ({"destination": form["destination"]} if form["destination"] else {})
        await visit.api.post("/attribution/partners/{}/links", visit.sub, body=body, key=form["key"])

    return await standing(visit, "start", program_id).tried(act, "link")


@router.post("/portal/{program_id}/start/promo-codes")
async def create_promo_code(visit: ThePartner, program_id: ProgramId) -> Response:
    async def act(form: Form) -> None:
        body = {"program_id": program_id} | ({"code": form["code"]} if form["code"] else {})
        await visit.api.post("/attribution/partners/{}/promo-codes", visit.sub, body=body, key=form["key"])

    return await standing(visit, "start", program_id).tried(act, "promo_code")
