"""Referrals: who came, what they paid, and why each counts as it does."""

import asyncio
import csv
import io
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from schemas.ids import Id
from schemas.money import decimal_amount
from services.portal.partner import Program, ProgramId, add, standing
from services.portal.visit import ThePartner, Visit

router = APIRouter()
ROWS = 25
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""


@add("referrals", "Referrals")
async def load(visit: Visit, program: Program) -> dict[str, Any]:
    """Both lists. `after`, `paid_after` in the address: cursors of their next pages."""
    query = visit.request.query_params
    search, own = query.get("search", ""), {"program_id": program.program_id, "limit": ROWS}
    referrals, payments = await asyncio.gather(
        visit.api.get(_REFERRALS, visit.sub, **own, search=search, cursor=query.get("after")),
        visit.api.get(_COMMISSIONS, visit.sub, **own, search=search, cursor=query.get("paid_after")),
    )
    at = {"after": query.get("after", ""), "paid_after": query.get("paid_after", "")}
    return {"referrals": referrals, "payments": payments, "search": search, **at}


_REFERRALS, _COMMISSIONS = "/attribution/partners/{}/referrals", "/commission/partners/{}/commissions"


@router.get("/portal/{program_id}/referrals.csv")
async def referrals_csv(visit: ThePartner, program_id: ProgramId, search: str = "") -> Response:
    await standing(visit, "referrals", program_id).load()
    names = ("signed_up_at", "customer_id", "name", "email", "phone", "accounts", "status")
    found = visit.api.every(_REFERRALS, visit.sub, program_id=program_id, search=search)
    return _csv("referrals", names, [[each[name] for name in names] async for each in found])


@router.get("/portal/{program_id}/payments.csv")
async def payments_csv(visit: ThePartner, program_id: ProgramId, search: str = "") -> Response:
    await standing(visit, "referrals", program_id).load()
    names = ("occurred_at", "payment_id", "customer_name", "account_name", "rate", "available_at")
    money = ("base", "amount", "reversed")
    found = visit.api.every(_COMMISSIONS, visit.sub, program_id=program_id, search=search)
    rows = [
        [each[name] for name in names]
        + [decimal_amount(each[name]["minor"], each[name]["currency"]) for name in money]
        + [each["base"]["currency"]]
        async for each in found
    ]
    return _csv("payments", (*names, *money, "currency"), rows)


@router.get("/portal/{program_id}/referrals/{customer_id}/why")
async def why_referred(visit: ThePartner, program_id: ProgramId, customer_id: Id) -> Response:
    decision = await visit.api.get("/attribution/partners/{}/referrals/{}/decision", visit.sub, customer_id)
    return await _why(visit, program_id, decision, customer_id)


@router.get("/portal/{program_id}/payments/{payment_id}/why")
async def why_paid(visit: ThePartner, program_id: ProgramId, payment_id: Id) -> Response:
    decision = await visit.api.get("/commission/partners/{}/payments/{}/decision", visit.sub, payment_id)
    return await _why(visit, program_id, decision, payment_id)


async def _why(visit: Visit, program_id: str, decision: dict[str, Any], about: str) -> Response:
    """The decision in words: in a dialogue of the page, or as a page of its own where there is no script."""
    context: dict[str, Any] = {"decision": decision, "about": about}
    if visit.request.headers.get("hx-request"):
        return visit.page("why.part.html", **context)
    at = await standing(visit, "referrals", program_id).load()
    return visit.page("why.html", **context, **at)


def _csv(name: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Response:
    """A file that a spreadsheet shows as it stands: no cell is taken for a formula."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(names)
    for row in rows:
        writer.writerow(f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell for cell in row)
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    return Response(text.getvalue(), 200, headers, "text/csv; charset=utf-8")
