"""Companies: the order in which they take discounts, what each would get, and what past months gave."""

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from services.portal.partner import Program, ProgramId, add, standing
from services.portal.visit import Form, ThePartner, Visit

router = APIRouter()
_COMPANIES = "/rewards/partners/{}/companies"


@add("companies", "Companies", "monthly_discount")
async def load(visit: Visit, program: Program) -> dict[str, Any]:
    own = {"program_id": program.program_id}
    given, accounts, history = await asyncio.gather(
        visit.api.get(_COMPANIES, visit.sub, **own),
        visit.api.get("/attribution/partners/{}/accounts", visit.sub),
        visit.api.get("/rewards/partners/{}/history", visit.sub, **own, limit=100),
    )
    months = [each for each in history["items"] if each["type"].startswith("discount.")]
    return {"given": given, "names": _names(accounts), "months": months}


@router.get("/portal/{program_id}/companies/picture")
async def picture(visit: ThePartner, program_id: ProgramId) -> Response:
    """What an order would give that is not saved yet."""
    order = visit.request.query_params.getlist("account_id")
    given, accounts = await asyncio.gather(
        visit.api.get(_COMPANIES, visit.sub, program_id=program_id, order=order),
        visit.api.get("/attribution/partners/{}/accounts", visit.sub),
    )
    return visit.page("companies.picture.html", given=given, names=_names(accounts))


@router.post("/portal/{program_id}/companies/order")
async def reorder(visit: ThePartner, program_id: ProgramId) -> Response:
    async def act(form: Form) -> None:
        body = {"program_id": program_id, "account_ids": form.all("account_id")}
        await visit.api.put("/attribution/partners/{}/account-order", visit.sub, body=body)

    return await standing(visit, "companies", program_id).tried(act, "order")


def _names(accounts: dict[str, Any]) -> dict[str, str]:
    return {each["account_id"]: each["name"] or each["account_id"] for each in accounts["accounts"]}
