"""Clients: the partner account, payments for clients, the welcome bonus, and claims of clients."""

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from schemas.ids import Id
from services.portal import terms
from services.portal.client import Api, ApiRefused
from services.portal.pages import quoted
from services.portal.partner import Program, ProgramId, add, standing
from services.portal.session import API_TOKEN_SECONDS
from services.portal.visit import Form, ThePartner, Visit, go
from services.runtime.settings import Settings
from services.runtime.tokens import signed_token

router = APIRouter()


@add("clients", "Clients", "integrator_account", "retention")
async def load(visit: Visit, program: Program) -> dict[str, Any]:
    api, sub, own = visit.api, visit.sub, {"program_id": program.program_id}
    balances, wallet, deposits, lines = await asyncio.gather(
        api.get("/payouts/partners/{}/balance", sub),
        api.get("/rewards/partners/{}/wallet", sub),
        api.get("/payouts/partners/{}/deposits", sub, **own),
        _payments(visit, program),
    )
    integrator = terms.term(program.document, "integrator_account") or {"families": {}}
    return {
        "books": [each for each in balances["balances"] if each["program_id"] == program.program_id],
        "bonuses": [
            {**each, "days": visit.days_until(each["expires_at"])}
            for each in wallet["bonuses"]
            if each["program_id"] == program.program_id
        ],
        "deposits": deposits,
        "client_payments": lines,
        "integrations": sorted(name for each in integrator["families"].values() for name in each["integrations"]),
        "currency": program.document["currency"],
    }


async def _payments(visit: Visit, program: Program) -> list[dict[str, Any]]:
    """What was spent for clients, newest first."""
    found = [
        each
        async for each in visit.api.every("/payouts/partners/{}/statement", visit.sub, program_id=program.program_id)
        if each["kind"] == "client_payment"
    ]
    return found[::-1][:50]


@router.post("/portal/{program_id}/clients/deposits")
async def deposit(visit: ThePartner, program_id: ProgramId) -> Response:
    """Then the deposit's own page: an invoice to print, or the card to pay with."""
    made: dict[str, Any] = {}

    async def act(form: Form) -> None:
        body = {
            "program_id": program_id,
            "amount": form.money("deposit", form["currency"]),
            "method": form["method"],
        }
        made.update(
            await visit.api.post("/payouts/partners/{}/deposits", visit.sub, body=body, key=form["key"]),
        )

    answer = await standing(visit, "clients", program_id).tried(act, "deposit")
    return go(f"/portal/{program_id}/clients/deposits/{made['deposit_id']}", "deposit") if made else answer


@router.get("/portal/{program_id}/clients/deposits/{deposit_id}")
async def own_deposit(visit: ThePartner, program_id: ProgramId, deposit_id: Id) -> Response:
    at = await standing(visit, "clients", program_id).load()
    found, done = await _deposit(visit, program_id, deposit_id), visit.request.query_params.get("done", "")
    return visit.page("deposit.html", **at, deposit=found, done=done, has_test_cards=_settings(visit).local)


@router.post("/portal/{program_id}/clients/deposits/{deposit_id}/test-card")
async def pay_with_test_card(visit: ThePartner, program_id: ProgramId, deposit_id: Id) -> Response:
    """A payment provider for the local stack alone: it says that the card was charged, as a real one would.

    Errors: ApiRefused 404 elsewhere, and for a deposit of somebody else.
    """
    form = await visit.form()
    if not _settings(visit).local:
        raise ApiRefused(404, "not_found", "There is no such thing here.")
    await _deposit(visit, program_id, deposit_id)
    provider = Api(
        visit.request.app.state.http,
        lambda: signed_token(_settings(visit), "platform", "test-card-provider", API_TOKEN_SECONDS),
    )
    await provider.post("/payouts/deposits/{}/confirm", deposit_id, key=form["key"])
    return go(f"/portal/{program_id}/clients", "charged")


def _settings(visit: Visit) -> Settings:
    settings: Settings = visit.request.app.state.settings
    return settings


async def _deposit(visit: Visit, program_id: str, deposit_id: str) -> dict[str, Any]:
    """One of the partner's own. Errors: ApiRefused 404."""
    async for each in visit.api.every("/payouts/partners/{}/deposits", visit.sub, program_id=program_id):
        if each["deposit_id"] == deposit_id:
            return each
    raise ApiRefused(404, "not_found", "There is no such thing here.")


@router.post("/portal/{program_id}/clients/payments")
async def pay(visit: ThePartner, program_id: ProgramId) -> Response:
    async def act(form: Form) -> None:
        body = {
            "program_id": program_id,
            "customer_id": form["customer_id"],
            "integration": form["integration"],
            "interval": form["interval"],
            "list_price": form.money("list_price", form["currency"]),
            "use_bonus": form["use_bonus"] == "yes",
        }
        await visit.api.post("/payouts/partners/{}/client-payments", visit.sub, body=body, key=form["key"])

    return await standing(visit, "clients", program_id).tried(act, "client_payment")


@router.get("/portal/{program_id}/clients/price")
async def price(visit: ThePartner, program_id: ProgramId) -> Response:
    """What the payment in the form would cost, line by line."""

    async def ask(form: Form) -> Any:
        amount = form.money("list_price", form["currency"])
        asked = {name: form[name] for name in ("customer_id", "integration", "interval")}
        return await visit.api.get(
            "/payouts/partners/{}/client-payment-quote", visit.sub, program_id=program_id, **asked, **amount
        )

    return await quoted(visit, "price.part.html", ask)


@router.post("/portal/{program_id}/clients/retention")
async def claim_client(visit: ThePartner, program_id: ProgramId) -> Response:
    async def act(form: Form) -> None:
        body = {"program_id": program_id, "customer_id": form["client_id"], "evidence": form["evidence"]}
        await visit.api.post("/attribution/partners/{}/retention-claims", visit.sub, body=body, key=form["key"])

    return await standing(visit, "clients", program_id).tried(act, "retention")
