"""Payouts: what there is, when it comes, and what can be done with it."""

import asyncio
from itertools import groupby
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from schemas.ids import Id
from services.portal.pages import quoted
from services.portal.partner import Program, ProgramId, add, standing
from services.portal.visit import Form, ThePartner, Visit

router = APIRouter()
LINES = 25


@add("payouts", "Payouts", "share", "integrator_account")
async def load(visit: Visit, program: Program) -> dict[str, Any]:
    api, sub, own = visit.api, visit.sub, {"program_id": program.program_id}
    balances, tier, accounts, withdrawals, coming = await asyncio.gather(
        api.get("/payouts/partners/{}/balance", sub),
        api.get("/commission/partners/{}/tier", sub, **own),
        api.get("/attribution/partners/{}/accounts", sub),
        api.get("/payouts/partners/{}/withdrawals", sub, **own, cursor=visit.request.query_params.get("after")),
        _coming(visit, program),
    )
    books = [each for each in balances["balances"] if each["program_id"] == program.program_id]
    minimums = {each["currency"]: each for each in program.document["payouts"]["minimums"]}
    currencies = list(minimums) or [each["currency"] for each in books] or [program.document["currency"]]
    return {
        "books": books,
        "tier": tier,
        "withdrawals": withdrawals,
        "coming": coming,
        "minimums": minimums,
        "currencies": currencies,
        "accounts": [each for each in accounts["accounts"] if not each["closed_at"]],
    }


async def _coming(visit: Visit, program: Program) -> list[dict[str, Any]]:
    """What is pending by the day from which it is available, soonest first: `{day, currency, minor}`."""
    found = [
        (each["available_at"][:10], each["amount"]["currency"], each["amount"]["minor"] - each["reversed"]["minor"])
        async for each in visit.api.every(
            "/commission/partners/{}/commissions", visit.sub, program_id=program.program_id, pending="true"
        )
    ]
    return [
        {"day": day, "currency": currency, "minor": sum(each[2] for each in those)}
        for (day, currency), those in groupby(sorted(found), key=lambda each: each[:2])
    ]


@router.post("/portal/{program_id}/payouts/withdrawals")
async def withdraw(visit: ThePartner, program_id: ProgramId) -> Response:
    async def act(form: Form) -> None:
        body = {
            "program_id": program_id,
            "amount": form.money("amount", form["currency"]),
            "destination": form["destination"],
        } | ({"comment": form["comment"]} if form["comment"] else {})
        await visit.api.post("/payouts/partners/{}/withdrawals", visit.sub, body=body, key=form["key"])

    return await standing(visit, "payouts", program_id).tried(act, "withdrawal")


@router.post("/portal/{program_id}/payouts/withdrawals/{withdrawal_id}/cancel")
async def cancel(visit: ThePartner, program_id: ProgramId, withdrawal_id: Id) -> Response:
    async def act(form: Form) -> None:
        await visit.api.post("/payouts/withdrawals/{}/cancel", withdrawal_id, key=form["key"])

    return await standing(visit, "payouts", program_id).tried(act, "cancelled")


@router.post("/portal/{program_id}/payouts/topups")
async def top_up(visit: ThePartner, program_id: ProgramId) -> Response:
    async def act(form: Form) -> None:
        amount = form.money("amount", form["currency"])
        body = {"program_id": program_id, "account_id": form["account_id"], "amount": amount}
        await visit.api.post("/payouts/partners/{}/topups", visit.sub, body=body, key=form["key"])

    return await standing(visit, "payouts", program_id).tried(act, "topup")


@router.get("/portal/{program_id}/payouts/worth")
async def worth(visit: ThePartner, program_id: ProgramId) -> Response:
    """What the amount in the top-up form would be worth, beside what it is as money."""

    async def ask(form: Form) -> Any:
        amount = form.money("amount", form["currency"])
        return await visit.api.get("/payouts/partners/{}/topup-quote", visit.sub, program_id=program_id, **amount)

    return await quoted(visit, "worth.part.html", ask)


@router.get("/portal/{program_id}/payouts/statement")
async def statement(visit: ThePartner, program_id: ProgramId) -> Response:
    """Every line, newest last, page by page."""
    at = await standing(visit, "payouts", program_id).load()
    lines = await visit.api.get(
        "/payouts/partners/{}/statement",
        visit.sub,
        program_id=program_id,
        limit=LINES,
        cursor=visit.request.query_params.get("after"),
    )
    return visit.page("statement.html", **at, lines=lines)


@router.get("/portal/{program_id}/payouts/statement.csv")
async def statement_csv(visit: ThePartner, program_id: ProgramId) -> Response:
    content = await visit.api.csv("/payouts/partners/{}/statement", visit.sub, program_id=program_id)
    headers = {"Content-Disposition": 'attachment; filename="statement.csv"'}
    return Response(content, 200, headers, "text/csv; charset=utf-8")
