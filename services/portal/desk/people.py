"""Partners, referred purchases, and the decision behind each figure."""

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from schemas.ids import Id
from services.portal.desk.pages import DeskPage, with_menu
from services.portal.visit import TheAdmin, Visit

router = APIRouter()
ROWS = 50
OUTCOMES = ("accrued", "credited", "declined", "waiting")


@router.get("/admin/partners")
async def partners(visit: TheAdmin) -> Response:
    query = visit.request.query_params
    search = query.get("search", "")

    async def load() -> dict[str, Any]:
        found = await visit.api.get("/attribution/partners", search=search, cursor=query.get("after"), limit=ROWS)
        return {"partners": found, "search": search}

    return visit.page("desk/partners.html", **await with_menu(load, "partners"))


def _partner(visit: Visit, partner_id: str) -> DeskPage:
    async def load() -> dict[str, Any]:
        api = visit.api
        partner, balances, referrals, commissions, withdrawals = await asyncio.gather(
            api.get("/attribution/partners/{}", partner_id),
            api.get("/payouts/partners/{}/balance", partner_id),
            api.get("/attribution/partners/{}/referrals", partner_id, limit=ROWS),
            api.get("/commission/partners/{}/commissions", partner_id, limit=ROWS),
            api.get("/payouts/partners/{}/withdrawals", partner_id, limit=ROWS),
        )
        return {
            "partner": partner,
            "balances": balances["balances"],
            "referrals": referrals,
            "commissions": commissions,
            "withdrawals": withdrawals,
        }

    return DeskPage(visit, "partners", "desk/partner", load, f"/admin/partners/{partner_id}")


@router.get("/admin/partners/{partner_id}")
async def partner(visit: TheAdmin, partner_id: Id) -> Response:
    return await _partner(visit, partner_id).shown()


@router.get("/admin/partners/{partner_id}/live")
async def partner_live(visit: TheAdmin, partner_id: Id) -> Response:
    return await _partner(visit, partner_id).followed()


@router.get("/admin/purchases")
async def purchases(visit: TheAdmin, program_id: str = "", outcome: str = "") -> Response:
    """The decisions on a program's payments; the first program's unless one is chosen."""

    async def load() -> dict[str, Any]:
        names = sorted([each["program_id"] async for each in visit.api.every("/attribution/programs")])
        chosen = program_id if program_id in names else next(iter(names), "")
        asked = {"program_id": chosen, "outcome": outcome if outcome in OUTCOMES else ""}
        after = visit.request.query_params.get("after")
        found: dict[str, Any] = {"items": [], "next_cursor": None}
        if chosen:
            found = await visit.api.get("/commission/decisions", **asked, limit=ROWS, cursor=after)
        return {"decisions": found, "names": names, "outcomes": OUTCOMES, **asked}

    return visit.page("desk/purchases.html", **await with_menu(load, "purchases"))


@router.get("/admin/payments/{payment_id}")
async def payment(visit: TheAdmin, payment_id: Id) -> Response:
    return await _decision(visit, "/commission/payments/{}/decision", payment_id, "purchases")


@router.get("/admin/customers/{customer_id}")
async def customer(visit: TheAdmin, customer_id: Id) -> Response:
    return await _decision(visit, "/attribution/customers/{}/decision", customer_id, "partners")


async def _decision(visit: Visit, path: str, about: str, here: str) -> Response:
    async def load() -> dict[str, Any]:
        return {"decision": await visit.api.get(path, about), "about": about}

    return visit.page("desk/decision.html", **await with_menu(load, here))
